//! `catnap sandbox exec`: runs a command in a sandbox, prints its output, and exits with its exit code.
//!
//! It calls the guest agent's `process.Process/Start` with the Connect protocol: one request message, then a stream of
//! events, each in a [`frame`].

mod frame;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::StreamExt;
use guest_api::envd::{self, ExitStatus};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use self::frame::{Frame, FrameDecoder};
use crate::{
    cli::ExecArgs,
    client::{ApiError, Client, error_for_status, sandbox_path},
};

pub(super) async fn run(args: &ExecArgs) -> Result<ExitCode> {
    let client = Client::new(&args.client)?;
    let sandbox = client
        .call(Method::GET, &sandbox_path(&args.id, ""), None)
        .await
        .context("failed to find the sandbox")?;
    if sandbox.get("state").and_then(Value::as_str) == Some("paused")
        && sandbox.pointer("/lifecycle/autoResume") != Some(&Value::Bool(true))
    {
        let message = format!(
            "sandbox {id} is paused; resume it with `catnap sandbox resume {id}`",
            id = args.id
        );
        return Err(ApiError {
            status: StatusCode::CONFLICT,
            message,
        }
        .into());
    }
    let mut request = client
        .sandbox_request(&args.id, envd::AGENT_PORT, "/process.Process/Start")
        .header("content-type", "application/connect+json")
        .header("connect-protocol-version", "1")
        .body(frame::encode(start_request(args)?.to_string().as_bytes())?);
    if let Some(token) = sandbox.get("envdAccessToken").and_then(Value::as_str) {
        request = request.header("X-Access-Token", token);
    }
    let response = error_for_status(client.send(request).await?)
        .await
        .context("failed to start the command")?;
    forward_output(response).await
}

/// Builds the `StartRequest` of the command.
fn start_request(args: &ExecArgs) -> Result<Value> {
    let Some((program, arguments)) = args.command.split_first() else {
        bail!("the command is missing")
    };
    let mut process = json!({
        "cmd": program,
        "args": arguments,
        "envs": args.env.iter().cloned().collect::<BTreeMap<_, _>>(),
    });
    if let Some(cwd) = &args.cwd {
        process["cwd"] = json!(cwd);
    }
    Ok(json!({ "process": process, "stdin": false }))
}

/// Forwards the output of the command until it exits, and returns its exit code.
async fn forward_output(response: Response) -> Result<ExitCode> {
    let mut chunks = response.bytes_stream();
    let mut frames = FrameDecoder::default();
    let mut code = None;
    while let Some(chunk) = chunks.next().await {
        frames.push(&chunk.context("failed to read the command's output")?);
        while let Some(frame) = frames.next()? {
            match frame {
                Frame::Message(message) => code = handle_event(&message)?.or(code),
                Frame::EndStream(message) => check_end_of_stream(&message)?,
            }
        }
    }
    code.map(ExitCode::from)
        .ok_or_else(|| anyhow!("the stream ended before the command exited"))
}

/// Prints the output in an event, or returns the exit code in an end event.
fn handle_event(message: &[u8]) -> Result<Option<u8>> {
    let message: Value =
        serde_json::from_slice(message).context("failed to decode a process event")?;
    let event = message.get("event").unwrap_or(&Value::Null);
    if let Some(data) = event.get("data") {
        write_output(data, "stdout", &mut io::stdout().lock())?;
        write_output(data, "stderr", &mut io::stderr().lock())?;
    }
    Ok(event.get("end").map(exit_code))
}

fn write_output(data: &Value, stream: &str, out: &mut impl Write) -> Result<()> {
    if let Some(text) = data.get(stream).and_then(Value::as_str) {
        let bytes = STANDARD
            .decode(text)
            .context("failed to decode the command's output")?;
        out.write_all(&bytes)?;
        out.flush()?;
    }
    Ok(())
}

/// Converts an end event to the exit code of a shell: 128 plus the signal number if a signal killed the process.
fn exit_code(end: &Value) -> u8 {
    let status = end
        .get("status")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let status = if status.is_empty() {
        // JSON messages may omit zero values.
        let code = end.get("exitCode").and_then(Value::as_i64).unwrap_or(0);
        Ok(ExitStatus::Code(i32::try_from(code).unwrap_or(-1)))
    } else {
        status.parse()
    };
    status.map_or(u8::MAX, ExitStatus::shell_code)
}

/// Returns the error in an end-of-stream message, if any.
fn check_end_of_stream(message: &[u8]) -> Result<()> {
    let end: Value =
        serde_json::from_slice(message).context("failed to decode the end of the stream")?;
    match end.get("error") {
        None | Some(Value::Null) => Ok(()),
        Some(error) => {
            let text = |name: &str| {
                error
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            bail!(
                "the guest agent returned an error: {} ({})",
                text("message"),
                text("code")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_event_maps_to_shell_exit_code() {
        for (end, code) in [
            (json!({}), 0),
            (
                json!({ "exitCode": 7, "exited": true, "status": "exit status 7" }),
                7,
            ),
            (json!({ "exitCode": -1, "status": "signal: killed" }), 137),
            (
                json!({ "exitCode": -1, "status": "signal: segmentation fault (core dumped)" }),
                139,
            ),
            (
                json!({ "exitCode": -1, "status": "signal: alarm clock" }),
                142,
            ),
            (
                json!({ "exitCode": -1, "status": "signal: signal 34" }),
                162,
            ),
            (json!({ "exitCode": -1, "status": "signal: odd" }), 255),
        ] {
            assert_eq!(exit_code(&end), code, "{end}");
        }
    }

    #[test]
    fn end_of_stream_error_is_returned() {
        assert!(check_end_of_stream(b"{}").is_ok());
        let error = br#"{"error":{"code":"not_found","message":"no bash"}}"#;
        let error = check_end_of_stream(error).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the guest agent returned an error: no bash (not_found)"
        );
    }
}
