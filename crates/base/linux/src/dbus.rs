//! A client of a message bus: one connection, one call at a time, everything bounded.
//!
//! ```text
//! address ─▶ Connection::open ─EXTERNAL─▶ call(…) ─▶ values
//!                                         await_signal(…)
//! ```
//!
//! It blocks, up to a time given with each call, and speaks to a bus as well as straight to
//! a program (as to systemd through its private socket). Messages that are neither the
//! answer nor a signal somebody waits for are dropped; descriptors are not taken. See the
//! D-Bus specification for the forms.

mod address;
mod message;
mod value;
mod wire;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use thiserror::Error;

pub use address::Address;
use message::{Kind, Message};
pub use value::{Value, parse_text};

/// Signals kept while an answer is waited for.
const MAX_SIGNALS: usize = 512;

/// The longest line of the greeting.
const MAX_LINE: usize = 1024;

/// Why a bus did not answer as it should.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BusError {
    /// The address is of a kind that is not spoken here.
    #[error("bus address {text:?} is none of unix:path=… and unix:abstract=…")]
    Address {
        /// The address.
        text: String,
    },
    /// Nobody answers there.
    #[error("connecting to the message bus at {address}")]
    Connect {
        /// Where.
        address: String,
        /// What the system answered.
        source: io::Error,
    },
    /// We were not let in.
    #[error("the message bus at {address} does not let this user in: it said {said:?}")]
    Refused {
        /// Where.
        address: String,
        /// The last line of the greeting.
        said: String,
    },
    /// The connection broke.
    #[error("talking to the message bus about {attempt}")]
    Talk {
        /// What was attempted.
        attempt: String,
        /// What the system answered.
        source: io::Error,
    },
    /// What came is not a message.
    #[error("the message bus said something malformed: {what}")]
    Malformed {
        /// What about it.
        what: &'static str,
    },
    /// The call was answered with an error.
    #[error("{method} was refused: {name}: {message}")]
    Failed {
        /// The method called.
        method: String,
        /// The error's name.
        name: String,
        /// What it says to people.
        message: String,
    },
    /// Nothing came in time.
    #[error("waiting for {attempt}: nothing came in {} seconds", limit.as_secs())]
    TimedOut {
        /// What was waited for.
        attempt: String,
        /// How long.
        limit: Duration,
    },
}

impl BusError {
    /// Whether the call was answered with the error of this name.
    pub fn is_named(&self, wanted: &str) -> bool {
        matches!(self, Self::Failed { name, .. } if name == wanted)
    }
}

/// A method to call.
#[derive(Clone, Copy, Debug)]
pub struct Method<'a> {
    /// The program's name on the bus; without effect on a private connection.
    pub destination: &'a str,
    /// The object.
    pub path: &'a str,
    /// The interface.
    pub interface: &'a str,
    /// The method.
    pub name: &'a str,
}

/// A signal that arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// The interface.
    pub interface: String,
    /// Its name.
    pub name: String,
    /// What it carries.
    pub values: Vec<Value>,
}

/// A connection, let in.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    private: bool,
    limit: Duration,
    serial: u32,
    signals: VecDeque<Signal>,
}

impl Connection {
    /// Connects to the first of `addresses` that answers, and is let in as the user that
    /// the kernel says we are. Each call may take as long as `limit`.
    ///
    /// # Errors
    ///
    /// That of the last address; see [`BusError`].
    pub fn open(addresses: &[Address], limit: Duration) -> Result<Self, BusError> {
        let mut last = BusError::Address { text: String::new() };
        for address in addresses {
            match Self::open_one(address, limit) {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn open_one(address: &Address, limit: Duration) -> Result<Self, BusError> {
        let failed = |source| BusError::Connect { address: address.to_string(), source };
        let stream = address.connect(limit).map_err(failed)?;
        stream.set_read_timeout(Some(limit)).map_err(failed)?;
        stream.set_write_timeout(Some(limit)).map_err(failed)?;
        let private = address.is_private();
        let mut connection = Self { stream, private, limit, serial: 0, signals: VecDeque::new() };
        connection.greet(address)?;
        if !private {
            connection.call(BUS.method("Hello"), &[])?;
        }
        Ok(connection)
    }

    /// Says who we are, which the other side reads from the socket itself.
    fn greet(&mut self, address: &Address) -> Result<(), BusError> {
        let failed = |source| BusError::Connect { address: address.to_string(), source };
        let refused =
            |said: &str| BusError::Refused { address: address.to_string(), said: said.to_owned() };
        self.stream.write_all(b"\0AUTH EXTERNAL\r\n").map_err(failed)?;
        let mut said = self.line().map_err(failed)?;
        if said.starts_with("DATA") {
            self.stream.write_all(b"DATA\r\n").map_err(failed)?;
            said = self.line().map_err(failed)?;
        }
        if !said.starts_with("OK") {
            return Err(refused(&said));
        }
        self.stream.write_all(b"BEGIN\r\n").map_err(failed)
    }

    /// A line of the greeting, a byte at a time: what follows the last is messages.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            if line.len() > MAX_LINE || self.stream.read(&mut byte)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Whether this is one program without a bus between.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Asks the bus for signals of an interface and name.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn subscribe(&mut self, interface: &str, name: &str) -> Result<(), BusError> {
        let rule = format!("type='signal',interface='{interface}',member='{name}'");
        self.call(BUS.method("AddMatch"), &[Value::Text(rule)]).map(|_| ())
    }

    /// Calls a method and waits for its answer.
    ///
    /// # Errors
    ///
    /// [`BusError::Failed`] with the error the other side answered with;
    /// [`BusError::TimedOut`] when it does not answer.
    pub fn call(&mut self, method: Method<'_>, values: &[Value]) -> Result<Vec<Value>, BusError> {
        self.serial += 1;
        let serial = self.serial;
        let attempt = || format!("{}.{}", method.interface, method.name);
        let bytes = message::encode_call(serial, method, values);
        self.stream
            .write_all(&bytes)
            .map_err(|source| BusError::Talk { attempt: attempt(), source })?;
        let deadline = Instant::now() + self.limit;
        loop {
            let message = self.receive(deadline, &attempt)?;
            match message.kind {
                Kind::Return if message.reply_to == Some(serial) => return message.values(),
                Kind::Error if message.reply_to == Some(serial) => {
                    let text = match message.values()?.into_iter().next() {
                        Some(Value::Text(text)) => text,
                        _ => String::new(),
                    };
                    let name = message.error.unwrap_or_default();
                    return Err(BusError::Failed { method: attempt(), name, message: text });
                }
                _ => self.keep(&message),
            }
        }
    }

    /// Waits for a signal that `wanted` is true of, among those since the connection was
    /// opened.
    ///
    /// # Errors
    ///
    /// [`BusError::TimedOut`], which names `attempt`.
    pub fn await_signal(
        &mut self,
        attempt: &str,
        wanted: impl Fn(&Signal) -> bool,
    ) -> Result<Signal, BusError> {
        let deadline = Instant::now() + self.limit;
        loop {
            while let Some(signal) = self.signals.pop_front() {
                if wanted(&signal) {
                    return Ok(signal);
                }
            }
            let message = self.receive(deadline, &|| attempt.to_owned())?;
            self.keep(&message);
        }
    }

    /// Signals that carry what is not understood here are of no use to anybody waiting.
    fn keep(&mut self, message: &Message) {
        let (Kind::Signal, Ok(values)) = (message.kind, message.values()) else { return };
        if self.signals.len() == MAX_SIGNALS {
            self.signals.pop_front();
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (interface, name) = (text(&message.interface), text(&message.member));
        self.signals.push_back(Signal { interface, name, values });
    }

    fn receive(
        &mut self,
        deadline: Instant,
        attempt: &dyn Fn() -> String,
    ) -> Result<Message, BusError> {
        let mut head = [0; message::HEAD];
        self.read(&mut head, deadline, attempt)?;
        let length = message::rest_length(&head)?;
        let mut bytes = head.to_vec();
        bytes.resize(message::HEAD + length, 0);
        let rest = bytes.get_mut(message::HEAD..).unwrap_or_default();
        self.read(rest, deadline, attempt)?;
        message::decode(bytes)
    }

    fn read(
        &mut self,
        mut buffer: &mut [u8],
        deadline: Instant,
        attempt: &dyn Fn() -> String,
    ) -> Result<(), BusError> {
        let talk = |source| BusError::Talk { attempt: attempt(), source };
        while !buffer.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(BusError::TimedOut { attempt: attempt(), limit: self.limit });
            }
            self.stream.set_read_timeout(Some(left)).map_err(talk)?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(talk(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => buffer = buffer.get_mut(count..).unwrap_or_default(),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    _ => return Err(talk(error)),
                },
            }
        }
        Ok(())
    }
}

/// An object that methods are called on.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// The program's name on the bus.
    pub destination: &'static str,
    /// The object.
    pub path: &'static str,
    /// The interface.
    pub interface: &'static str,
}

impl Object {
    /// A method of the interface.
    pub fn method(self, name: &str) -> Method<'_> {
        Method { destination: self.destination, path: self.path, interface: self.interface, name }
    }
}

/// The bus itself.
const BUS: Object = Object {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

#[cfg(test)]
pub(crate) mod tests;
