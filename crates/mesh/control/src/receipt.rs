//! What the proxy says of what it was told.

use std::path::Path;
use std::time::Duration;

use carrack_net::unix;
use carrack_xds::Receipt;
use tokio::time::{Instant, sleep, timeout_at};

use carrack_telemetry::logging::chain;

use crate::publish::{PublishError, Publisher};

/// The first and the longest pause between two questions to a proxy that does not answer, or
/// that answers without news.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// Why a workload may not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The proxy could not be told of it.
    #[error("capturing the traffic of {uid}")]
    Publish {
        /// The workload.
        uid: String,
        /// What went wrong.
        source: PublishError,
    },
    /// Something is wrong with it, so that the proxy was not told.
    #[error("capturing the traffic of {uid}: {message}")]
    LeftOut {
        /// The workload.
        uid: String,
        /// What is wrong.
        message: String,
    },
    /// The proxy did not do so in time.
    #[error("capturing the traffic of {uid}: {reason}; see the log of the node proxy")]
    Late {
        /// The workload.
        uid: String,
        /// How things stood in the end.
        reason: String,
    },
}

/// Waits until the proxy's receipt names `version`, or one written since.
///
/// # Errors
///
/// How things stand when patience ends.
pub(crate) async fn in_force(
    proxy: &Path,
    version: &str,
    publisher: &Publisher,
    patience: Duration,
) -> Result<(), String> {
    ask_until(
        proxy,
        patience,
        |receipt| {
            if receipt.version == version || receipt.version == publisher.version() {
                return Answer::Yes;
            }
            refusal(receipt, publisher).unwrap_or_else(|| {
                Answer::NotYet(
                    "the node proxy has not taken up the newest resources yet".to_owned(),
                )
            })
        },
        publisher,
    )
    .await
}

/// Waits until the proxy has captured `uid`.
pub(crate) async fn captured(
    proxy: &Path,
    uid: &str,
    publisher: &Publisher,
    patience: Duration,
) -> Result<(), CaptureError> {
    ask_until(
        proxy,
        patience,
        |receipt| {
            if receipt.captured(uid) {
                return Answer::Yes;
            }
            refusal(receipt, publisher)
                .unwrap_or_else(|| Answer::NotYet(not_captured(receipt, uid)))
        },
        publisher,
    )
    .await
    .map_err(|reason| CaptureError::Late { uid: uid.to_owned(), reason })
}

enum Answer {
    Yes,
    NotYet(String),
}

/// What stands in the way when the newest resources were refused. They may be
/// written again, so this is no reason to stop asking.
fn refusal(receipt: &Receipt, publisher: &Publisher) -> Option<Answer> {
    let refused = receipt.refused.as_deref()?;
    (refused == publisher.version()).then(|| {
        Answer::NotYet(format!("the node proxy refused the resources: {}", problems(receipt)))
    })
}

fn not_captured(receipt: &Receipt, uid: &str) -> String {
    let listed = receipt.workloads.iter().any(|workload| workload.uid == uid);
    match (listed, receipt.problems.is_empty()) {
        (true, true) => "the node proxy has not captured it yet".to_owned(),
        (_, false) => format!("the node proxy has problems: {}", problems(receipt)),
        (false, true) => "the node proxy has not heard of it yet".to_owned(),
    }
}

fn problems(receipt: &Receipt) -> String {
    let lines: Vec<_> = receipt
        .problems
        .iter()
        .map(|problem| format!("{} {} {}", problem.resource, problem.path, problem.message))
        .collect();
    lines.join("; ")
}

/// Asks for receipts until `judge` says yes. A proxy that does not answer may be
/// on its way back, so it is asked again.
async fn ask_until(
    proxy: &Path,
    patience: Duration,
    judge: impl Fn(&Receipt) -> Answer,
    publisher: &Publisher,
) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    let mut published = publisher.published();
    let (mut pause, longest) = PAUSES;
    let mut reason = "the node proxy did not answer".to_owned();
    // What it said last; it answers with something else, and waits until there is.
    let mut known = None;
    loop {
        match timeout_at(deadline, receipt(proxy, known)).await {
            Ok(Ok(receipt)) => {
                match judge(&receipt) {
                    Answer::Yes => return Ok(()),
                    Answer::NotYet(why) => reason = why,
                }
                if known.replace(receipt.revision) != Some(receipt.revision) {
                    pause = PAUSES.0;
                    continue;
                }
            }
            Ok(Err(why)) => reason = why,
            Err(_) => return Err(reason),
        }
        if Instant::now() + pause >= deadline {
            return Err(reason);
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(longest),
            Ok(()) = published.changed() => pause = PAUSES.0,
        }
    }
}

/// The proxy's receipt, at once or when it is another than the `known` one.
async fn receipt(proxy: &Path, known: Option<u64>) -> Result<Receipt, String> {
    let target =
        known.map_or_else(|| "/config".to_owned(), |revision| format!("/config?after={revision}"));
    let answer = unix::get(proxy, &target)
        .await
        .map_err(|error| format!("the node proxy does not answer: {}", chain(&error)))?;
    if !answer.status.is_success() {
        return Err(format!("the node proxy answered {}", answer.status));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| format!("the node proxy's receipt is not understood: {error}"))
}
