//! The node proxy as a program.

use std::process::ExitCode;

use anyhow::Context as _;
use carrack_dataplane::{Config, Timeouts};

use crate::settings::Settings;

/// Runs until asked to end.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    super::start_logging()?;
    let _lock = super::take_role(settings, "proxy")?;
    let trust_domain = settings.trust_domain()?;
    super::make_private(&settings.root.join("mesh"))?;
    let config = Config {
        resources: settings.resources(),
        identity: settings.identity_socket(),
        admin: settings.proxy_socket(),
        access_log: settings.access_log(),
        trust_domain,
        timeouts: Timeouts::default(),
    };
    let executor = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the executor")?;
    executor.block_on(async {
        let shutdown = async {
            if let Err(error) = super::asked_to_end().await {
                tracing::error!(error = format!("{error:#}"), "ending");
            }
        };
        carrack_dataplane::run(config, shutdown).await.context("running the node proxy")
    })?;
    Ok(ExitCode::SUCCESS)
}
