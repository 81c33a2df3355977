use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread::JoinHandle;

use super::message::encode;
use super::*;

/// What a call asked, as the other side sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) member: String,
    pub(crate) values: Vec<Value>,
}

/// What the other side says to a call.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    Values(Vec<Value>),
    Error(&'static str, &'static str),
    /// The values, and behind them a signal.
    ThenSignal(Vec<Value>, &'static str, Vec<Value>),
    Nothing,
}

/// A bus of our own: lets one client in and answers its calls until it goes.
pub(crate) struct FakeBus {
    pub(crate) path: PathBuf,
    _directory: tempfile::TempDir,
    thread: JoinHandle<Vec<Asked>>,
}

impl FakeBus {
    pub(crate) fn start(answer: impl Fn(&Asked) -> Says + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bus");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || serve(&listener, answer));
        Self { path, _directory: directory, thread }
    }

    /// What was asked, once the client has gone.
    pub(crate) fn finish(self) -> Vec<Asked> {
        self.thread.join().unwrap()
    }
}

fn serve(listener: &UnixListener, answer: impl Fn(&Asked) -> Says) -> Vec<Asked> {
    let (stream, _) = listener.accept().unwrap();
    let mut server = Connection {
        stream,
        private: true,
        limit: Duration::from_secs(10),
        serial: 0,
        signals: VecDeque::new(),
    };
    let mut zero = [1];
    server.stream.read_exact(&mut zero).unwrap();
    assert_eq!((zero[0], server.line().unwrap().as_str()), (0, "AUTH EXTERNAL"));
    server.stream.write_all(b"DATA\r\n").unwrap();
    assert_eq!(server.line().unwrap(), "DATA");
    server.stream.write_all(b"OK 0123\r\n").unwrap();
    assert_eq!(server.line().unwrap(), "BEGIN");
    let mut all = Vec::new();
    let mut serial = 0;
    loop {
        let deadline = Instant::now() + Duration::from_secs(10);
        let Ok(message) = server.receive(deadline, &String::new) else { return all };
        serial += 1;
        let asked =
            Asked { member: message.member.clone().unwrap(), values: message.values().unwrap() };
        let reply = |kind, mut fields: Vec<(u8, Value)>, values: &[Value]| {
            // The caller numbers its calls from one.
            fields.push((5, Value::U32(serial)));
            encode(kind, serial, fields, values)
        };
        let bytes = match answer(&asked) {
            Says::Values(values) => reply(2, Vec::new(), &values),
            Says::Error(name, text) => {
                reply(3, vec![(4, Value::Text(name.into()))], &[Value::Text(text.into())])
            }
            Says::ThenSignal(values, name, carried) => {
                let mut bytes = reply(2, Vec::new(), &values);
                let interface = "org.freedesktop.systemd1.Manager";
                let fields = vec![
                    (1, Value::Path("/x".into())),
                    (2, Value::Text(interface.into())),
                    (3, Value::Text(name.into())),
                ];
                bytes.extend(encode(4, 1000 + serial, fields, &carried));
                bytes
            }
            Says::Nothing => Vec::new(),
        };
        server.stream.write_all(&bytes).unwrap();
        all.push(asked);
    }
}

const OBJECT: Object = Object { destination: "a.b", path: "/a/b", interface: "a.b.C" };

#[test]
fn every_kind_of_value_comes_back_as_it_was_sent() {
    let values = vec![
        Value::Byte(7),
        Value::Bool(true),
        Value::I16(-2),
        Value::U16(3),
        Value::I32(-4),
        Value::U32(5),
        Value::I64(-6),
        Value::U64(u64::MAX),
        Value::Double(1.5),
        Value::Text("text ✓".into()),
        Value::Path("/a".into()),
        Value::Signature("a(ss)".into()),
        Value::Array("(ss)".into(), Vec::new()),
        Value::Array(
            "(sv)".into(),
            vec![Value::Struct(vec![
                Value::Text("PIDs".into()),
                Value::Variant(Box::new(Value::Array("u".into(), vec![Value::U32(9)]))),
            ])],
        ),
        Value::bytes(&[1, 2, 3]),
    ];
    let bus = FakeBus::start(|asked| Says::Values(asked.values.clone()));
    let limit = Duration::from_secs(10);
    let mut client = Connection::open(&[Address::Private(bus.path.clone())], limit).unwrap();
    assert_eq!(client.call(OBJECT.method("Echo"), &values).unwrap(), values);
    drop(client);
    assert_eq!(bus.finish(), [Asked { member: "Echo".into(), values }]);
}

#[test]
fn a_bus_is_greeted_and_a_private_socket_is_not() {
    let bus = FakeBus::start(|_| Says::Values(Vec::new()));
    let limit = Duration::from_secs(10);
    let missing = Address::Path(bus.path.with_file_name("missing"));
    let addresses = [missing, Address::Path(bus.path.clone())];
    let mut client = Connection::open(&addresses, limit).unwrap();
    client.subscribe("a.b.C", "D").unwrap();
    drop(client);
    let asked: Vec<String> = bus.finish().into_iter().map(|asked| asked.member).collect();
    assert_eq!(asked, ["Hello", "AddMatch"]);
}

#[test]
fn an_error_is_told_by_its_name_and_silence_by_what_was_waited_for() {
    let bus = FakeBus::start(|asked| match asked.member.as_str() {
        "Fail" => Says::Error("a.b.Wrong", "it is so"),
        _ => Says::Nothing,
    });
    let limit = Duration::from_millis(200);
    let mut client = Connection::open(&[Address::Private(bus.path.clone())], limit).unwrap();
    let error = client.call(OBJECT.method("Fail"), &[]).unwrap_err();
    assert!(error.is_named("a.b.Wrong"));
    assert_eq!(error.to_string(), "a.b.C.Fail was refused: a.b.Wrong: it is so");
    let error = client.call(OBJECT.method("Silent"), &[]).unwrap_err();
    assert!(matches!(error, BusError::TimedOut { .. }), "{error}");
    assert!(error.to_string().contains("a.b.C.Silent"));
}

#[test]
fn what_is_not_a_message_is_refused() {
    for bytes in [
        b"x\x02\0\x01\0\0\0\0\x01\0\0\0\0\0\0\0".as_slice(),
        b"l\x02\0\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0",
        b"l\x02\0\x01\0\0\0\0\x01\0\0\0\x08\0\0\0\x05\x01u\0\xff\xff\xff\xff",
    ] {
        let head: &[u8; message::HEAD] = bytes[..message::HEAD].try_into().unwrap();
        let answer = message::rest_length(head).and_then(|_| message::decode(bytes.to_vec()));
        // The last is well-formed: an answer to the call of the highest number.
        let expected = bytes.len() > message::HEAD;
        assert_eq!(answer.is_ok(), expected, "{bytes:?}");
    }
    let short = b"l\x02\0\x01\0\0\0\0\x01\0\0\0\xf0\0\0\0\x05\x01u\0".to_vec();
    assert!(message::decode(short).is_err());
}

#[test]
fn addresses_are_read_as_the_environment_spells_them() {
    let path = |path: &str| Address::Path(path.into());
    for (text, expected) in [
        ("unix:path=/run/user/1000/bus", vec![path("/run/user/1000/bus")]),
        ("unix:path=/a%20b,guid=0f", vec![path("/a b")]),
        (
            "tcp:host=x;unix:abstract=/tmp/dbus-x,guid=1;unix:path=/c",
            vec![Address::Abstract(b"/tmp/dbus-x".into()), path("/c")],
        ),
    ] {
        assert_eq!(Address::parse_list(text).unwrap(), expected, "for {text}");
    }
    assert!(Address::parse_list("tcp:host=x").is_err());
    assert!(Address::parse_list("").is_err());
}

#[test]
fn values_are_read_from_the_text_that_annotations_hold() {
    let text = |text: &str| Value::Text(text.into());
    for (given, expected) in [
        ("uint64 123456789", Some(Value::U64(123_456_789))),
        ("456", Some(Value::I32(456))),
        ("-1", Some(Value::I32(-1))),
        ("byte 234", Some(Value::Byte(234))),
        ("int16 0x10", Some(Value::I16(16))),
        ("2.5", Some(Value::Double(2.5))),
        ("true", Some(Value::Bool(true))),
        ("'inactive-or-failed'", Some(text("inactive-or-failed"))),
        (r#""it's""#, Some(text("it's"))),
        (r"'a\'b'", Some(text("a'b"))),
        ("['a', 'b']", Some(Value::Array("s".into(), vec![text("a"), text("b")]))),
        ("[uint32 1, 2]", Some(Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)]))),
        ("@as []", Some(Value::Array("s".into(), vec![]))),
        ("@au [1]", Some(Value::Array("u".into(), vec![Value::U32(1)]))),
        ("objectpath '/a'", Some(Value::Path("/a".into()))),
        ("[]", None),
        ("['a', 1]", None),
        ("byte 256", None),
        ("'open", None),
        ("1 2", None),
        ("{'a': 1}", None),
        ("", None),
        ("word", None),
    ] {
        assert_eq!(parse_text(given).ok(), expected, "for {given}");
    }
}
