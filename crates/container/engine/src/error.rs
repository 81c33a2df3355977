//! Why the engine did not do what was asked.

use std::error::Error;

use crate::api::Fault;
use crate::plan::PlanProblem;

/// Why the engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// There is no such thing.
    #[error("no such {kind}: {name}")]
    NotFound {
        /// `container`, `image`, `volume` or `project`.
        kind: &'static str,
        /// What it was called.
        name: String,
    },
    /// What was asked is not possible as things stand.
    #[error("{0}")]
    Conflict(String),
    /// What was asked makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The application cannot be planned.
    #[error("the application cannot be brought up:{}", lines(.0))]
    Plan(Vec<PlanProblem>),
    /// It was tried and failed.
    #[error("{attempt}")]
    Failed {
        /// What was attempted, on what.
        attempt: String,
        /// The exit code Docker gives in this case.
        exit_code: u8,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

fn lines(problems: &[PlanProblem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

impl EngineError {
    /// A failure of the engine itself, for use with `map_err`.
    pub(crate) fn failed<E>(attempt: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let attempt = attempt.into();
        move |source| Self::Failed { attempt, exit_code: 125, source: source.into() }
    }

    pub(crate) fn shim(attempt: impl Into<String>, source: carrack_shim::ShimError) -> Self {
        let exit_code = u8::try_from(source.exit_code()).unwrap_or(125);
        Self::Failed { attempt: attempt.into(), exit_code, source: Box::new(source) }
    }

    /// What a person is told over the socket.
    pub fn fault(&self) -> Fault {
        let mut causes = Vec::new();
        let mut next = self.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        let exit_code = if let Self::Failed { exit_code, .. } = self { *exit_code } else { 125 };
        Fault { message: self.to_string(), causes, exit_code }
    }
}
