//! One call, from its request to its answer.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::{
    Feed, Inbox, RpcError,
    codec::{Format, Wire},
    envelope,
    feed::FeedBody,
    headers,
};
use crate::{
    agent::Agent,
    respond::{self, Answer, BodyError},
    user::{User, UserError},
};

/// A call that was not looked into yet.
#[derive(Debug)]
pub(crate) struct Call {
    format: Format,
    headers: HeaderMap,
    body: Incoming,
}

/// What a call says beside its messages.
#[derive(Debug)]
pub(crate) struct Context {
    user: Option<String>,
    /// When its caller stops waiting.
    pub(crate) deadline: Option<Instant>,
    pub(super) keepalive: Duration,
}

impl Call {
    /// Takes a request; what is no call in Connect is answered at once.
    pub(crate) fn of(request: Request<Incoming>) -> Result<Self, Box<Answer>> {
        let (parts, body) = request.into_parts();
        match Format::read(&parts.headers) {
            Some(format) => Ok(Self {
                format,
                headers: parts.headers,
                body,
            }),
            None => Err(Box::new(unsupported())),
        }
    }

    /// One message in, one out.
    pub(crate) async fn unary<I: Wire, O: Wire>(
        self,
        handle: impl AsyncFnOnce(I, &Context) -> Result<O, RpcError>,
    ) -> Answer {
        let format = self.format;
        if format.streams {
            return unsupported();
        }
        let result = async {
            let context = self.context()?;
            let body = respond::collect(self.body)
                .await
                .map_err(|error| match error {
                    BodyError::TooLong => {
                        RpcError::new(super::Code::ResourceExhausted, error.to_string())
                    }
                    BodyError::Read(_) => RpcError::invalid(respond::chain(&error)),
                })?;
            let message = format.codec.decode(&body)?;
            let output = in_time(&context, handle(message, &context)).await?;
            format.codec.encode(&output)
        };
        match result.await {
            Ok(bytes) => with_type(respond::bytes(bytes), format),
            Err(error) => refusal(&error),
        }
    }

    /// One message in, any number out.
    pub(crate) async fn server_stream<I: Wire, O: Wire + Unpin>(
        self,
        handle: impl AsyncFnOnce(I, &Context) -> Result<Feed<O>, RpcError>,
    ) -> Answer {
        let format = self.format;
        if !format.streams {
            return unsupported();
        }
        let result = async {
            let context = self.context()?;
            let message = Inbox::new(self.body, format.codec).only().await?;
            let feed = handle(message, &context).await?;
            Ok::<_, RpcError>(FeedBody::new(feed, format.codec, &context))
        };
        match result.await {
            Ok(body) => with_type(Response::new(body.boxed_unsync()), format),
            Err(error) => with_type(respond::bytes(envelope::end(Some(&error))), format),
        }
    }

    /// Any number of messages in, one out.
    pub(crate) async fn client_stream<I: Wire, O: Wire>(
        self,
        handle: impl AsyncFnOnce(Inbox<I>) -> Result<O, RpcError>,
    ) -> Answer {
        let format = self.format;
        if !format.streams {
            return unsupported();
        }
        let result = async {
            let context = self.context()?;
            let inbox = Inbox::new(self.body, format.codec);
            let output = in_time(&context, handle(inbox)).await?;
            let message = format.codec.encode(&output)?;
            Ok([envelope::wrap(&message), envelope::end(None)].concat())
        };
        let body = match result.await {
            Ok(bytes) => bytes.into(),
            Err(error) => envelope::end(Some(&error)),
        };
        with_type(respond::bytes(body), format)
    }

    /// A procedure that does not exist.
    pub(crate) fn unknown(&self, name: &str) -> Answer {
        let error = RpcError::new(
            super::Code::Unimplemented,
            format!("procedure {name} is not implemented"),
        );
        if self.format.streams {
            with_type(respond::bytes(envelope::end(Some(&error))), self.format)
        } else {
            refusal(&error)
        }
    }

    fn context(&self) -> Result<Context, RpcError> {
        headers::check(&self.headers, self.format.streams)?;
        // A limit too far to be told is none.
        let deadline =
            headers::timeout(&self.headers)?.and_then(|limit| Instant::now().checked_add(limit));
        Ok(Context {
            user: headers::basic_user(&self.headers)?,
            deadline,
            keepalive: headers::keepalive(&self.headers),
        })
    }
}

impl Context {
    /// The user the caller named, or the default one.
    pub(crate) fn user(&self, agent: &Agent) -> Result<User, RpcError> {
        agent
            .user(self.user.as_deref())
            .map_err(|error| match error {
                UserError::Unknown(_) => {
                    RpcError::new(super::Code::Unauthenticated, error.to_string())
                }
                UserError::Read(_) => RpcError::new(super::Code::Internal, respond::chain(&error)),
            })
    }
}

async fn in_time<T>(
    context: &Context,
    work: impl Future<Output = Result<T, RpcError>>,
) -> Result<T, RpcError> {
    match context.deadline {
        None => work.await,
        Some(deadline) => timeout_at(deadline, work)
            .await
            .unwrap_or_else(|_| Err(RpcError::too_late())),
    }
}

/// A failed unary call is told in JSON, whatever its codec.
fn refusal(error: &RpcError) -> Answer {
    let mut answer = respond::json(error.code.status(), error);
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

fn with_type(mut answer: Answer, format: Format) -> Answer {
    let kind = HeaderValue::from_static(format.content_type());
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

fn unsupported() -> Answer {
    let mut answer = respond::error(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "content type is not that of this procedure in Connect, with JSON or protobuf",
    );
    let kinds = HeaderValue::from_static(
        "application/json, application/proto, application/connect+json, application/connect+proto",
    );
    answer.headers_mut().insert("accept-post", kinds);
    answer
}
