//! An agent in the test process, and an HTTP client for it.

use std::{convert::Infallible, future::Future, path::PathBuf, rc::Rc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::{StreamExt, channel::mpsc};
use guest::{AgentState, Config, LinuxKernel, Peer, Reap, serve};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;
use nix::unistd::{Gid, Uid};
use serde_json::Value;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UnixStream},
    task::{LocalSet, spawn_local},
};

/// An agent whose users and home directories are below a temporary root.
pub(crate) struct Rig {
    root: tempfile::TempDir,
    address: std::net::SocketAddr,
}

/// A complete response.
pub(crate) struct TestResponse {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// A response stream that is read event by event.
pub(crate) struct EventStream {
    body: Incoming,
    buffer: Vec<u8>,
}

/// Sends the body of a request in chunks.
pub(crate) type BodySender = mpsc::UnboundedSender<Bytes>;

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl Rig {
    pub(crate) async fn run<F: Future<Output = ()>>(test: impl FnOnce(Rc<Rig>) -> F) {
        Self::run_for(Peer::Host, test).await;
    }

    pub(crate) async fn run_for<F: Future<Output = ()>>(
        peer: Peer,
        test: impl FnOnce(Rc<Rig>) -> F,
    ) {
        let root = tempfile::tempdir().unwrap();
        Self::run_on(root, peer, None, test).await;
    }

    /// Runs an agent with a disk that the host may freeze, which must not be in use otherwise.
    pub(crate) async fn run_on<F: Future<Output = ()>>(
        root: tempfile::TempDir,
        peer: Peer,
        disk: Option<PathBuf>,
        test: impl FnOnce(Rc<Rig>) -> F,
    ) {
        let local = LocalSet::new();
        local
            .run_until(async {
                for dir in ["etc", "run", "home"] {
                    std::fs::create_dir(root.path().join(dir)).unwrap();
                }
                let home = root.path().join("home");
                let passwd = format!(
                    "user:x:{}:{}::{}:/bin/sh\n",
                    Uid::effective(),
                    Gid::effective(),
                    home.display()
                );
                std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
                let config = Config {
                    root: root.path().to_path_buf(),
                    disk,
                    ..Config::default()
                };
                let state = AgentState::start(config, Box::new(LinuxKernel), Reap::Own).unwrap();
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                spawn_local(serve::tcp(state, listener, peer));
                test(Rc::new(Rig { root, address })).await;
            })
            .await;
    }

    pub(crate) fn path(&self, below: &str) -> String {
        self.root.path().join(below).to_str().unwrap().to_owned()
    }

    /// Connects to the agent through a Unix stream, like the monitor does.
    pub(crate) async fn unix(&self) -> UnixStream {
        let (caller, mut near) = UnixStream::pair().unwrap();
        let mut far = TcpStream::connect(self.address).await.unwrap();
        spawn_local(async move { copy_bidirectional(&mut near, &mut far).await });
        caller
    }

    pub(crate) async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends requests concurrently over one HTTP/2 connection without TLS.
    pub(crate) async fn call_h2(&self, calls: Vec<(&str, &str, &str, &str)>) -> Vec<TestResponse> {
        let (sender, connection) = http2::handshake(LocalExecutor, TokioIo::new(self.tcp().await))
            .await
            .unwrap();
        spawn_local(connection);
        let calls = calls.into_iter().map(|(method, path, kind, body)| {
            let request = Request::builder()
                .method(method)
                .uri(format!("http://guest{path}"))
                .header("content-type", kind)
                .body(full_body(body))
                .unwrap();
            let mut sender = sender.clone();
            async move { TestResponse::read(sender.send_request(request).await.unwrap()).await }
        });
        futures::future::join_all(calls).await
    }

    async fn send(&self, request: Request<Body>) -> Response<Incoming> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.tcp().await))
            .await
            .unwrap();
        spawn_local(connection);
        sender.send_request(request).await.unwrap()
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> TestResponse {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "guest");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        TestResponse::read(self.send(request.body(full_body(body)).unwrap()).await).await
    }

    /// Starts a request with a streamed body. Returns the sender of the body and the future response.
    pub(crate) fn start(
        self: &Rc<Self>,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (BodySender, impl Future<Output = TestResponse> + use<>) {
        let mut request = Request::post(path).header("host", "guest");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (sender, receiver) = mpsc::unbounded();
        let body = StreamBody::new(receiver.map(|bytes| Ok(Frame::data(bytes))));
        let request = request.body(body.boxed_unsync()).unwrap();
        let rig = Rc::clone(self);
        let response =
            spawn_local(async move { TestResponse::read(rig.send(request).await).await });
        (sender, async move { response.await.unwrap() })
    }

    pub(crate) async fn get(&self, path: &str) -> TestResponse {
        self.call("GET", path, &[], "").await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> TestResponse {
        self.call("GET", path, headers, "").await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        kind: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> TestResponse {
        let headers = [&[("content-type", kind)], headers].concat();
        self.call("POST", path, &headers, body).await
    }

    pub(crate) async fn unary(&self, procedure: &str, body: &str) -> TestResponse {
        self.post(
            &format!("/process.Process/{procedure}"),
            "application/json",
            &[],
            body,
        )
        .await
    }

    pub(crate) async fn stream(
        &self,
        procedure: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> TestResponse {
        let path = format!("/process.Process/{procedure}");
        self.post(&path, "application/connect+json", headers, enveloped(body))
            .await
    }

    /// Calls a unary procedure of `filesystem.Filesystem`.
    pub(crate) async fn filesystem(&self, procedure: &str, body: &str) -> TestResponse {
        let path = format!("/filesystem.Filesystem/{procedure}");
        self.post(&path, "application/json", &[], body).await
    }

    pub(crate) async fn open_stream(&self, procedure: &str, body: &str) -> EventStream {
        self.follow(&format!("/process.Process/{procedure}"), &[], body)
            .await
    }

    pub(crate) async fn follow(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> EventStream {
        let mut request = Request::post(path)
            .header("host", "guest")
            .header("content-type", "application/connect+json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(full_body(enveloped(body))).unwrap();
        EventStream {
            body: self.send(request).await.into_body(),
            buffer: Vec::new(),
        }
    }
}

#[derive(Clone)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, work: F) {
        spawn_local(async move {
            work.await;
        });
    }
}

fn full_body(body: impl AsRef<[u8]>) -> Body {
    Full::from(Bytes::copy_from_slice(body.as_ref())).boxed_unsync()
}

/// Encloses a message in an envelope.
pub(crate) fn enveloped(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0], &length[..], body].concat()
}

/// Splits a complete stream into its messages and its end.
pub(crate) fn raw_messages(mut body: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut messages = Vec::new();
    loop {
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        let (flags, message) = (body[0], &body[5..5 + length]);
        body = &body[5 + length..];
        if flags == 2 {
            assert!(body.is_empty(), "bytes after the end of the stream");
            return (messages, message);
        }
        messages.push(message);
    }
}

impl TestResponse {
    async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes().to_vec(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("not JSON: {:?}", text(&self.body)))
    }
}

impl EventStream {
    /// Reads the next message, which may be the end of the stream.
    pub(crate) async fn next_event(&mut self) -> Value {
        loop {
            if let Some((message, len)) = split(&self.buffer) {
                self.buffer.drain(..len);
                return message.1;
            }
            let frame = self
                .body
                .frame()
                .await
                .expect("stream ended early")
                .unwrap();
            self.buffer.extend_from_slice(&frame.into_data().unwrap());
        }
    }
}

fn split(bytes: &[u8]) -> Option<((u8, Value), usize)> {
    let (head, rest) = bytes.split_first_chunk::<5>()?;
    let len = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
    let message = rest.get(..len)?;
    Some(((head[0], serde_json::from_slice(message).unwrap()), len + 5))
}

/// Splits a complete stream into its events and its end.
pub(crate) fn events(mut body: &[u8]) -> (Vec<Value>, Value) {
    let mut events = Vec::new();
    loop {
        let ((flags, message), len) = split(body).expect("stream without an end");
        body = &body[len..];
        if flags == 2 {
            assert!(body.is_empty(), "bytes after the end of the stream");
            return (events, message);
        }
        assert_eq!(flags, 0);
        events.push(message);
    }
}

/// The chunks of output of kind `name`.
pub(crate) fn chunks(events: &[Value], name: &str) -> Vec<Vec<u8>> {
    let data = events
        .iter()
        .filter_map(|event| event["event"]["data"][name].as_str());
    data.map(|text| STANDARD.decode(text).unwrap()).collect()
}

pub(crate) fn output(events: &[Value], name: &str) -> Vec<u8> {
    chunks(events, name).concat()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
