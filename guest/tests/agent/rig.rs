//! An agent in this process, and a caller of it.

use std::{future::Future, rc::Rc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use guest::{Agent, Config, LinuxKernel, Peer, Reap, serve};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use nix::unistd::{Gid, Uid};
use serde_json::Value;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UnixStream},
    task::{LocalSet, spawn_local},
};

/// An agent whose users, and whose home directories, are below a folder of its own.
pub(crate) struct Rig {
    root: tempfile::TempDir,
    address: std::net::SocketAddr,
}

/// An answer, whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// A stream of events that goes on.
pub(crate) struct Following {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Rig {
    pub(crate) async fn run<F: Future<Output = ()>>(test: impl FnOnce(Rc<Rig>) -> F) {
        Self::run_for(Peer::Host, test).await;
    }

    pub(crate) async fn run_for<F: Future<Output = ()>>(
        peer: Peer,
        test: impl FnOnce(Rc<Rig>) -> F,
    ) {
        let local = LocalSet::new();
        local
            .run_until(async {
                let root = tempfile::tempdir().unwrap();
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
                    ..Config::default()
                };
                let agent = Agent::start(config, Box::new(LinuxKernel), Reap::Own).unwrap();
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                spawn_local(serve::tcp(agent, listener, peer));
                test(Rc::new(Rig { root, address })).await;
            })
            .await;
    }

    pub(crate) fn path(&self, below: &str) -> String {
        self.root.path().join(below).to_str().unwrap().to_owned()
    }

    /// A Unix stream that is connected to the agent, as a monitor's is.
    pub(crate) async fn unix(&self) -> UnixStream {
        let (caller, mut near) = UnixStream::pair().unwrap();
        let mut far = TcpStream::connect(self.address).await.unwrap();
        spawn_local(async move { copy_bidirectional(&mut near, &mut far).await });
        caller
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        spawn_local(connection);
        sender.send_request(request).await.unwrap()
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "guest");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self
            .send(request.body(Full::from(body.to_owned())).unwrap())
            .await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], "").await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        kind: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let headers = [&[("content-type", kind)], headers].concat();
        self.call("POST", path, &headers, body).await
    }

    pub(crate) async fn unary(&self, procedure: &str, body: &str) -> Answer {
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
    ) -> Answer {
        let path = format!("/process.Process/{procedure}");
        self.post(&path, "application/connect+json", headers, &enveloped(body))
            .await
    }

    pub(crate) async fn open_stream(&self, procedure: &str, body: &str) -> Following {
        let request = Request::post(format!("/process.Process/{procedure}"))
            .header("host", "guest")
            .header("content-type", "application/connect+json")
            .body(Full::from(enveloped(body)))
            .unwrap();
        Following {
            body: self.send(request).await.into_body(),
            buffer: Vec::new(),
        }
    }
}

/// The body of these tests is text, so its length has no byte that is not ASCII.
fn enveloped(body: &str) -> String {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    assert!(length.is_ascii());
    format!("\0{}{body}", std::str::from_utf8(&length).unwrap())
}

impl Answer {
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

impl Following {
    /// The next message; the one that ends the stream is one of them.
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
                .expect("the stream goes on")
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

/// The events of a whole stream, and what ended it.
pub(crate) fn events(mut body: &[u8]) -> (Vec<Value>, Value) {
    let mut events = Vec::new();
    loop {
        let ((flags, message), len) = split(body).expect("a stream ends with its end");
        body = &body[len..];
        if flags == 2 {
            assert!(body.is_empty(), "something after the end");
            return (events, message);
        }
        assert_eq!(flags, 0);
        events.push(message);
    }
}

/// Each piece of output on `name`.
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
