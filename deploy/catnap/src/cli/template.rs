//! Arguments of `catnap template`.

use clap::{Args, Subcommand};

use super::client::ClientArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// List templates.
    #[command(alias = "list")]
    Ls(ClientArgs),
    /// Build a template of the gateway again, after its guest kernel or root disk changed.
    Build(BuildArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Name of the template.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
