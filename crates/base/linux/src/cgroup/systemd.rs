//! Groups that systemd makes: transient scopes, asked for over its bus.
//!
//! ```text
//! cgroupsPath ─▶ Scope ─┐
//! Limits ─▶ properties ─┴─▶ Manager::start … set … stop
//! ```
//!
//! Where systemd runs, the tree of groups is its own, and others make groups only below what
//! it delegated. A scope is such a place, and its limits are told to systemd too, because it
//! writes what it knows again whenever it reloads. Names and properties are decided by pure
//! functions; the manager only carries them over the bus.

mod properties;
mod unit;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Pid;

pub(super) use properties::unit_properties;
pub use properties::{Told, annotated, oom_policy, start_properties};
pub use unit::{Scope, expand_slice};

use super::CgroupError;
use crate::dbus::{Address, BusError, Connection, Object, Value};

/// A property of a unit and its value.
pub type Property = (String, Value);

/// How long systemd may take over one request.
const LIMIT: Duration = Duration::from_secs(30);

const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

const DESTINATION: &str = "org.freedesktop.systemd1";
const MANAGER: Object = Object {
    destination: DESTINATION,
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const PROPERTIES: Object = Object {
    destination: DESTINATION,
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.DBus.Properties",
};

/// Which systemd is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bus {
    /// The one that runs the machine.
    System,
    /// The one that runs a user's session, at this bus address.
    User(String),
}

impl Bus {
    fn addresses(&self) -> Result<Vec<Address>, BusError> {
        match self {
            Self::System => Ok(vec![
                Address::Private("/run/systemd/private".into()),
                Address::Path("/run/dbus/system_bus_socket".into()),
                Address::Path("/var/run/dbus/system_bus_socket".into()),
            ]),
            Self::User(address) => Address::parse_list(address),
        }
    }
}

/// A connection to systemd.
#[derive(Debug)]
pub struct Manager {
    connection: Connection,
    version: u32,
    root: PathBuf,
}

fn failed(attempt: impl Into<String>) -> impl FnOnce(BusError) -> CgroupError {
    let attempt = attempt.into();
    move |source| CgroupError::Systemd { attempt, source }
}

impl Manager {
    /// Connects, and asks for what decides how it is spoken to.
    ///
    /// # Errors
    ///
    /// [`CgroupError::NoSystemd`] when none answers.
    pub fn connect(bus: &Bus) -> Result<Self, CgroupError> {
        let no_systemd = |source| CgroupError::NoSystemd { source };
        let addresses = bus.addresses().map_err(no_systemd)?;
        Self::connect_to(&addresses, LIMIT)
    }

    fn connect_to(addresses: &[Address], limit: Duration) -> Result<Self, CgroupError> {
        let no_systemd = |source| CgroupError::NoSystemd { source };
        let mut connection = Connection::open(addresses, limit).map_err(no_systemd)?;
        let mut get = |name: &str| {
            let asked = [Value::Text(MANAGER.interface.into()), Value::Text(name.into())];
            let answer = connection.call(PROPERTIES.method("Get"), &asked)?;
            Ok(answer.first().and_then(Value::as_text).unwrap_or_default().to_owned())
        };
        let version = get("Version").map_err(no_systemd)?;
        let root = get("ControlGroup").map_err(no_systemd)?;
        Ok(Self { connection, version: unit::version(&version), root: root.into() })
    }

    /// Its version, such as 252; zero when it does not say.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The group that a scope becomes, counted from the hierarchies' roots.
    pub fn group(&self, scope: &Scope) -> PathBuf {
        let below = scope.path();
        self.root.join(below.strip_prefix("/").unwrap_or(&below))
    }

    /// Makes a scope that holds a process, and waits until it stands.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Systemd`]; nothing of the scope is left.
    pub fn start(
        &mut self,
        scope: &Scope,
        pid: Pid,
        properties: Vec<Property>,
    ) -> Result<(), CgroupError> {
        let attempt = format!("starting {}", scope.name);
        let pid = pid.as_raw_nonzero().get().unsigned_abs();
        let mut all = vec![("PIDs".to_owned(), Value::Array("u".into(), vec![Value::U32(pid)]))];
        all.extend(properties);
        let asked = [
            Value::Text(scope.name.clone()),
            Value::Text("replace".into()),
            encode(all),
            Value::Array("(sa(sv))".into(), Vec::new()),
        ];
        let subscribed = self.listen();
        let started = subscribed
            .and_then(|()| self.start_unit(scope, &asked))
            .and_then(|job| self.await_job(&attempt, &job));
        let result = match started {
            Ok(result) => result,
            Err(error) => {
                // What is there under this name already is somebody else's.
                if !error.is_named(UNIT_EXISTS) {
                    self.forget(&scope.name);
                }
                return Err(failed(attempt)(error));
            }
        };
        if result == "done" {
            return Ok(());
        }
        self.forget(&scope.name);
        Err(CgroupError::Job { attempt, result })
    }

    /// A unit that failed keeps its name until it is reset.
    fn start_unit(&mut self, scope: &Scope, asked: &[Value]) -> Result<String, BusError> {
        let method = MANAGER.method("StartTransientUnit");
        let answer = match self.connection.call(method, asked) {
            Err(error) if error.is_named(UNIT_EXISTS) => {
                let name = [Value::Text(scope.name.clone())];
                self.connection.call(MANAGER.method("ResetFailedUnit"), &name).ok();
                self.connection.call(method, asked)?
            }
            answer => answer?,
        };
        Ok(job(&answer))
    }

    /// Changes properties of a unit, until it goes.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Systemd`].
    pub fn set(&mut self, unit: &str, properties: Vec<Property>) -> Result<(), CgroupError> {
        if properties.is_empty() {
            return Ok(());
        }
        let asked = [Value::Text(unit.to_owned()), Value::Bool(true), encode(properties)];
        self.connection
            .call(MANAGER.method("SetUnitProperties"), &asked)
            .map(|_| ())
            .map_err(failed(format!("setting properties of {unit}")))
    }

    /// Moves a process into a unit, for a caller who may not do so itself.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Systemd`].
    pub fn attach(&mut self, unit: &str, pid: Pid) -> Result<(), CgroupError> {
        let pid = pid.as_raw_nonzero().get().unsigned_abs();
        let asked = [
            Value::Text(unit.to_owned()),
            Value::Text("/".into()),
            Value::Array("u".into(), vec![Value::U32(pid)]),
        ];
        self.connection
            .call(MANAGER.method("AttachProcessesToUnit"), &asked)
            .map(|_| ())
            .map_err(failed(format!("moving process {pid} to {unit}")))
    }

    /// Ends a unit and waits until it is gone; fine when it is gone already.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Systemd`].
    pub fn stop(&mut self, unit: &str) -> Result<(), CgroupError> {
        let attempt = format!("stopping {unit}");
        let asked = [Value::Text(unit.to_owned()), Value::Text("replace".into())];
        let stopped = self.listen().and_then(|()| {
            let answer = self.connection.call(MANAGER.method("StopUnit"), &asked)?;
            self.await_job(&attempt, &job(&answer))
        });
        self.reset(unit);
        match stopped {
            Err(error) if !error.is_named(NO_SUCH_UNIT) => Err(failed(attempt)(error)),
            // A job that was overtaken by the unit's own end is done as well.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Takes back what was started in part; the error that led here is the one to report.
    fn forget(&mut self, unit: &str) {
        let asked = [Value::Text(unit.to_owned()), Value::Text("replace".into())];
        self.connection.call(MANAGER.method("StopUnit"), &asked).ok();
        self.reset(unit);
    }

    /// A failed unit would stay in the lists; one that is gone already is no failure.
    fn reset(&mut self, unit: &str) {
        let name = [Value::Text(unit.to_owned())];
        self.connection.call(MANAGER.method("ResetFailedUnit"), &name).ok();
    }

    /// A private connection hears of jobs unasked, and has nobody to ask.
    fn listen(&mut self) -> Result<(), BusError> {
        if self.connection.is_private() {
            return Ok(());
        }
        self.connection.subscribe(MANAGER.interface, "JobRemoved")?;
        match self.connection.call(MANAGER.method("Subscribe"), &[]) {
            Err(error) if error.is_named("org.freedesktop.systemd1.AlreadySubscribed") => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    /// What became of a job: `done`, `failed`, `timeout`, `canceled`, `dependency`, `skipped`.
    fn await_job(&mut self, attempt: &str, job: &str) -> Result<String, BusError> {
        let signal = self.connection.await_signal(attempt, |signal| {
            signal.name == "JobRemoved"
                && signal.values.get(1).and_then(Value::as_text) == Some(job)
        })?;
        Ok(signal.values.get(3).and_then(Value::as_text).unwrap_or_default().to_owned())
    }
}

/// The job that an answer names.
fn job(answer: &[Value]) -> String {
    answer.first().and_then(Value::as_text).unwrap_or_default().to_owned()
}

fn encode(properties: Vec<Property>) -> Value {
    let pair =
        |(name, value)| Value::Struct(vec![Value::Text(name), Value::Variant(Box::new(value))]);
    Value::Array("(sv)".into(), properties.into_iter().map(pair).collect())
}

/// Whether a machine was started by systemd, by what it leaves for others to see.
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

#[cfg(test)]
mod tests;
