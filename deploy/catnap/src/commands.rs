//! The commands of the command line.

mod exec;
mod ledger;
mod sandboxes;
mod snapshots;
mod templates;

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    cli::{Cli, Command, LedgerCommand, SandboxCommand, SnapshotCommand, TemplateCommand},
    up,
};

/// Runs a command, and returns the exit code of its success.
pub(crate) async fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Up(args) => up::up(args).await?,
        Command::Sandbox(command) => return run_sandbox(command).await,
        Command::Template(TemplateCommand::Ls(args)) => templates::list(&args).await?,
        Command::Template(TemplateCommand::Build(args)) => templates::build(&args).await?,
        Command::Ledger(LedgerCommand::Rebuild(args)) => ledger::rebuild(&args).await?,
        Command::Ledger(LedgerCommand::Discard(args)) => ledger::discard(&args).await?,
        Command::Snapshot(SnapshotCommand::Ls(args)) => snapshots::list(&args).await?,
        Command::Snapshot(SnapshotCommand::Rm(args)) => snapshots::delete(&args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_sandbox(command: SandboxCommand) -> Result<ExitCode> {
    match command {
        SandboxCommand::Create(args) => sandboxes::create(&args).await?,
        SandboxCommand::Ls(args) => sandboxes::list(&args).await?,
        SandboxCommand::Info(args) => sandboxes::info(&args).await?,
        SandboxCommand::Pause(args) => sandboxes::pause(&args).await?,
        SandboxCommand::Resume(args) => sandboxes::resume(&args).await?,
        SandboxCommand::Fork(args) => sandboxes::fork(&args).await?,
        SandboxCommand::Kill(args) => sandboxes::kill(&args).await?,
        SandboxCommand::Logs(args) => sandboxes::logs(&args).await?,
        SandboxCommand::Metrics(args) => sandboxes::metrics(&args).await?,
        SandboxCommand::Snapshot(args) => snapshots::create(&args).await?,
        SandboxCommand::Rollback(args) => snapshots::rollback(&args).await?,
        SandboxCommand::Exec(args) => return exec::run(&args).await,
    }
    Ok(ExitCode::SUCCESS)
}
