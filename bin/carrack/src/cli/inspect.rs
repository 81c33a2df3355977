//! `carrack inspect`: a container or an image, everything known, as JSON.

use std::process::ExitCode;

use carrack_engine::client::ClientError;

use super::{daemon, images};
use crate::output;
use crate::settings::Settings;

/// Show everything known of an image or a container, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Look for one kind only
    #[arg(long = "type", value_enum, value_name = "KIND")]
    kind: Option<Kind>,
    /// Names, ids or digests
    #[arg(required = true)]
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Container,
    Image,
}

impl InspectArgs {
    pub(crate) async fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let mut found = Vec::new();
        let mut code = ExitCode::SUCCESS;
        for name in &self.names {
            match self.inspect(settings, name).await {
                Ok(value) => found.push(value),
                Err(error) => {
                    output::failure(&error);
                    code = ExitCode::FAILURE;
                }
            }
        }
        output::json(&found)?;
        Ok(code)
    }

    async fn inspect(&self, settings: &Settings, name: &str) -> anyhow::Result<serde_json::Value> {
        if self.kind != Some(Kind::Image)
            && let Some(client) = daemon::running_client(settings).await
        {
            match client.inspect(name).await {
                Ok(container) => return Ok(serde_json::to_value(container)?),
                Err(ClientError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.kind != Some(Kind::Container)
            && let Some(image) = images::inspect(settings, name)?
        {
            return Ok(image);
        }
        anyhow::bail!(
            "there is no {} `{name}`",
            match self.kind {
                Some(Kind::Container) => "container",
                Some(Kind::Image) => "image",
                None => "container or image",
            }
        )
    }
}
