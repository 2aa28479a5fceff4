//! `sandbox exec`: a command in a sandbox, its output here, its exit code ours.
//!
//! The guest agent's `process.Process/Start` over the Connect protocol: one request message, then a stream of events,
//! each behind a flag byte and a length.

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

use self::frame::{Frame, Frames};
use crate::{
    cli,
    client::{Client, Refused, accepted},
    commands::path,
};

/// Runs it.
pub(crate) async fn run(args: &cli::Exec) -> Result<ExitCode> {
    let client = Client::new(&args.remote)?;
    let found = client.call(Method::GET, &path(&args.id, ""), None).await;
    let sandbox = found.context("find the sandbox")?;
    if sandbox.get("state").and_then(Value::as_str) == Some("paused")
        && sandbox.pointer("/lifecycle/autoResume") != Some(&Value::Bool(true))
    {
        let message = format!(
            "sandbox {} is paused: wake it with `catnap sandbox resume {}`",
            args.id, args.id
        );
        return Err(Refused {
            status: StatusCode::CONFLICT,
            message,
        }
        .into());
    }
    let mut request = client
        .sandbox(&args.id, envd::AGENT_PORT, "/process.Process/Start")
        .header("content-type", "application/connect+json")
        .header("connect-protocol-version", "1")
        .body(frame::encode(start(args)?.to_string().as_bytes())?);
    if let Some(token) = sandbox.get("envdAccessToken").and_then(Value::as_str) {
        request = request.header("X-Access-Token", token);
    }
    let response = accepted(client.send(request).await?)
        .await
        .context("start the command")?;
    follow(response).await
}

/// The message that asks for the command.
fn start(args: &cli::Exec) -> Result<Value> {
    let Some((program, arguments)) = args.command.split_first() else {
        bail!("there is no command to run")
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

/// Passes the command's output on until it ends.
async fn follow(response: Response) -> Result<ExitCode> {
    let mut chunks = response.bytes_stream();
    let mut frames = Frames::default();
    let mut ended = None;
    while let Some(chunk) = chunks.next().await {
        frames.push(&chunk.context("follow the command")?);
        while let Some(frame) = frames.next()? {
            match frame {
                Frame::Message(bytes) => ended = event(&bytes)?.or(ended),
                Frame::End(bytes) => failed(&bytes)?,
            }
        }
    }
    ended
        .map(ExitCode::from)
        .ok_or_else(|| anyhow!("the stream ended before the command did"))
}

/// Passes an event on; the exit code when it is the last.
fn event(bytes: &[u8]) -> Result<Option<u8>> {
    let message: Value = serde_json::from_slice(bytes).context("understand an event")?;
    let event = message.get("event").unwrap_or(&Value::Null);
    if let Some(data) = event.get("data") {
        write(data, "stdout", &mut io::stdout().lock())?;
        write(data, "stderr", &mut io::stderr().lock())?;
    }
    Ok(event.get("end").map(exit_code))
}

fn write(data: &Value, stream: &str, out: &mut impl Write) -> Result<()> {
    if let Some(text) = data.get(stream).and_then(Value::as_str) {
        out.write_all(&STANDARD.decode(text).context("decode output")?)?;
        out.flush()?;
    }
    Ok(())
}

/// Converts envd's end event to the exit code of a shell: 128 plus the number of a signal.
fn exit_code(end: &Value) -> u8 {
    let status = end
        .get("status")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let status = if status.is_empty() {
        // Zero values may be left out.
        let code = end.get("exitCode").and_then(Value::as_i64).unwrap_or(0);
        Ok(ExitStatus::Code(i32::try_from(code).unwrap_or(-1)))
    } else {
        status.parse()
    };
    status.map_or(u8::MAX, ExitStatus::shell_code)
}

/// The end of the stream: an error, or nothing.
fn failed(bytes: &[u8]) -> Result<()> {
    let end: Value = serde_json::from_slice(bytes).context("understand the end of the stream")?;
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
                "the guest agent refused: {} ({})",
                text("message"),
                text("code")
            )
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_command_s_end_is_our_exit_code() {
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
    fn an_error_at_the_end_is_one() {
        assert!(failed(b"{}").is_ok());
        let error = failed(br#"{"error":{"code":"not_found","message":"no bash"}}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the guest agent refused: no bash (not_found)"
        );
    }
}
