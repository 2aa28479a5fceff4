//! Decodes a call, runs its procedure and encodes the response.

use error_chain::chain;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout_at;

use super::{
    codec::{CallKind, Format, RpcMessage},
    context::Context,
    envelope,
    error::{Code, RpcError},
    request_stream::RequestStream,
    response_stream::{ResponseStream, ResponseStreamBody},
};
use crate::{
    request_body::{self, BodyError},
    response::{self, HttpResponse},
};

/// A call whose body is not read yet.
#[derive(Debug)]
pub(crate) struct Call {
    format: Format,
    headers: HeaderMap,
    body: Incoming,
}

impl Call {
    /// Reads the format of a request. The error is the response for an unsupported content type.
    pub(crate) fn from_request(request: Request<Incoming>) -> Result<Self, Box<HttpResponse>> {
        let (parts, body) = request.into_parts();
        match Format::parse(&parts.headers) {
            Some(format) => Ok(Self {
                format,
                headers: parts.headers,
                body,
            }),
            None => Err(Box::new(unsupported_media_type())),
        }
    }

    /// Runs a procedure with one request and one response message.
    pub(crate) async fn unary<I: RpcMessage, O: RpcMessage>(
        self,
        handle: impl AsyncFnOnce(I, &Context) -> Result<O, RpcError>,
    ) -> HttpResponse {
        let format = self.format;
        if format.kind != CallKind::Unary {
            return unsupported_media_type();
        }
        let result = async {
            let context = Context::parse(&self.headers, format.kind)?;
            let body = request_body::read(self.body)
                .await
                .map_err(|error| match error {
                    BodyError::TooLong => RpcError::new(Code::ResourceExhausted, error.to_string()),
                    BodyError::Read(_) => RpcError::invalid_argument(chain(&error).to_string()),
                })?;
            let message = format.codec.decode(&body)?;
            let output = with_deadline(&context, handle(message, &context)).await?;
            format.codec.encode(&output)
        };
        match result.await {
            Ok(bytes) => with_content_type(response::bytes(bytes), format),
            Err(error) => error_response(&error),
        }
    }

    /// Runs a procedure with one request message and a stream of response messages.
    pub(crate) async fn server_stream<I: RpcMessage, O: RpcMessage + Unpin>(
        self,
        handle: impl AsyncFnOnce(I, &Context) -> Result<ResponseStream<O>, RpcError>,
    ) -> HttpResponse {
        let format = self.format;
        if format.kind != CallKind::Streaming {
            return unsupported_media_type();
        }
        let result = async {
            let context = Context::parse(&self.headers, format.kind)?;
            let message = RequestStream::new(self.body, format.codec).single().await?;
            let stream = handle(message, &context).await?;
            Ok::<_, RpcError>(ResponseStreamBody::new(stream, format.codec, &context))
        };
        match result.await {
            Ok(body) => with_content_type(Response::new(body.boxed_unsync()), format),
            Err(error) => {
                with_content_type(response::bytes(envelope::encode_end(Some(&error))), format)
            }
        }
    }

    /// Runs a procedure with a stream of request messages and one response message.
    pub(crate) async fn client_stream<I: RpcMessage, O: RpcMessage>(
        self,
        handle: impl AsyncFnOnce(RequestStream<I>) -> Result<O, RpcError>,
    ) -> HttpResponse {
        let format = self.format;
        if format.kind != CallKind::Streaming {
            return unsupported_media_type();
        }
        let result = async {
            let context = Context::parse(&self.headers, format.kind)?;
            let messages = RequestStream::new(self.body, format.codec);
            let output = with_deadline(&context, handle(messages)).await?;
            let message = format.codec.encode(&output)?;
            Ok([
                envelope::encode_message(&message),
                envelope::encode_end(None),
            ]
            .concat())
        };
        let body = match result.await {
            Ok(bytes) => bytes.into(),
            Err(error) => envelope::encode_end(Some(&error)),
        };
        with_content_type(response::bytes(body), format)
    }

    /// Builds the response for a procedure that does not exist.
    pub(crate) fn unknown_procedure(&self, name: &str) -> HttpResponse {
        let error = RpcError::new(
            Code::Unimplemented,
            format!("procedure {name} is not implemented"),
        );
        match self.format.kind {
            CallKind::Unary => error_response(&error),
            CallKind::Streaming => {
                let body = envelope::encode_end(Some(&error));
                with_content_type(response::bytes(body), self.format)
            }
        }
    }
}

async fn with_deadline<T>(
    context: &Context,
    work: impl Future<Output = Result<T, RpcError>>,
) -> Result<T, RpcError> {
    match context.deadline {
        None => work.await,
        Some(deadline) => timeout_at(deadline, work)
            .await
            .unwrap_or_else(|_| Err(RpcError::deadline_exceeded())),
    }
}

/// Builds the response of a failed unary call, which is JSON in both codecs.
fn error_response(error: &RpcError) -> HttpResponse {
    let mut response = response::json(error.code.status(), error);
    let content_type = HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

fn with_content_type(mut response: HttpResponse, format: Format) -> HttpResponse {
    let content_type = HeaderValue::from_static(format.content_type());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

fn unsupported_media_type() -> HttpResponse {
    let mut response = response::error(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported content type; use Connect with JSON or protobuf",
    );
    let accepted = HeaderValue::from_static(
        "application/json, application/proto, application/connect+json, application/connect+proto",
    );
    response.headers_mut().insert("accept-post", accepted);
    response
}
