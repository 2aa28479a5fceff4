//! Arguments of every command that calls the API.

use clap::Args;

#[derive(Debug, Clone, Args)]
pub(crate) struct ClientArgs {
    /// URL of the gateway.
    #[arg(long, env = "CATNAP_URL", default_value = "http://127.0.0.1:3000")]
    pub(crate) url: String,
    /// API key. Falls back to the environment variable `E2B_API_KEY`.
    #[arg(long, env = "CATNAP_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
