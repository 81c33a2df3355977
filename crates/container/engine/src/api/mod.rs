//! What is said over the engine's socket.
//!
//! HTTP/1.1 on a unix socket, JSON both ways. What takes a while answers with one JSON value per
//! line; [`exec`](ExecRequest) and [`attach`](AttachRequest) upgrade the connection to
//! [frames](Frame). Nothing here does anything: the words only.
//!
//! | | | |
//! |---|---|---|
//! | `GET` | `/version` | [`Version`] |
//! | `POST` | `/applications` | [`UpRequest`], then [`Event`]s |
//! | `POST` | `/projects/{project}/down` | [`DownRequest`], then [`Event`]s |
//! | `GET` | `/projects` | [`ProjectSummary`] list |
//! | `GET` | `/containers` | [`ContainerSummary`] list; `?all=`, `?project=` |
//! | `POST` | `/containers` | [`RunRequest`], answered by [`Created`] |
//! | `GET` | `/containers/{container}` | [`ContainerDetail`] |
//! | `DELETE` | `/containers/{container}` | [`RemoveRequest`] |
//! | `POST` | `/containers/{container}/start`, `stop`, `kill`, `restart`, `pause`, `resume` | |
//! | `POST` | `/containers/{container}/wait` | [`Exit`], once it has ended |
//! | `GET` | `/containers/{container}/logs` | [`LogsRequest`] as a query, then [`LogLine`]s |
//! | `POST` | `/containers/{container}/exec`, `attach` | upgrade to [`Frame`]s |
//! | `GET` | `/stats` | a list of [`Stats`] each second; `?container=`, `?once=` |
//! | `GET` `DELETE` | `/volumes`, `/volumes/{volume}` | [`VolumeSummary`] list |

mod answer;
mod frame;
mod request;

pub use answer::{
    Action, ContainerDetail, ContainerSummary, Created, Event, Exit, Fault, Health, HealthState,
    LogLine, LogStream, MountSummary, PlannedContainer, ProjectSummary, Stage, Stats, Status,
    Version, VolumeSummary,
};
pub use frame::{Frame, FrameCodec, FrameError, LARGEST_FRAME};
pub use request::{
    AttachRequest, DownRequest, ExecRequest, KillRequest, LogsRequest, Recreate, RemoveRequest,
    RunRequest, StatsRequest, StopRequest, UpRequest, plain_service,
};

/// What a connection is upgraded to for [`Frame`]s.
pub const UPGRADE_PROTOCOL: &str = "carrack-frames";

/// The version of what is said over the socket. It grows with every change an older client would
/// stumble over.
pub const API_VERSION: u32 = 1;
