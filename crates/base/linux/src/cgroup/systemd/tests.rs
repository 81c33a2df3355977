use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::cgroup::current::Current;
use crate::cgroup::{Cpu, DeviceAccess, DeviceKind, DeviceRule, Io, Limits, Memory, Version};
use crate::dbus::tests::{Asked, FakeBus, Says};

#[test]
fn a_slice_is_in_the_slices_its_name_begins_with() {
    for (slice, expected) in [
        ("system.slice", Some("/system.slice")),
        ("a-b.slice", Some("/a.slice/a-b.slice")),
        ("a-b-c.slice", Some("/a.slice/a-b.slice/a-b-c.slice")),
        ("-.slice", Some("/")),
        ("a--b.slice", None),
        ("-a.slice", None),
        (".slice", None),
        ("a/b.slice", None),
        ("a.scope", None),
    ] {
        assert_eq!(expand_slice(slice).as_deref(), expected.map(Path::new), "for {slice}");
    }
}

#[test]
fn a_scope_is_named_by_prefix_and_name() {
    for (path, expected) in [
        ("system.slice:docker:1234", Some(("system.slice", "docker-1234.scope"))),
        (":libpod:1234", Some(("user.slice", "libpod-1234.scope"))),
        ("a-b.slice::x", Some(("a-b.slice", "x.scope"))),
        ("", Some(("user.slice", "carrack-box.scope"))),
        ("/a/b", None),
        ("a:b", None),
        ("a:b:c:d", None),
        ("system:docker:1", None),
        ("system.slice:docker:a/b", None),
        ("system.slice:docker:pod.slice", None),
    ] {
        let scope = Scope::parse(path, "box", "user.slice").ok();
        let scope = scope.as_ref().map(|scope| (scope.slice.as_str(), scope.name.as_str()));
        assert_eq!(scope, expected, "for {path:?}");
    }
}

#[test]
fn a_version_is_read_as_distributions_spell_it() {
    for (text, expected) in
        [("252.38-1~deb12u1", 252), ("v245.4-1.fc32", 245), ("\"v257\"", 257), ("", 0)]
    {
        assert_eq!(unit::version(text), expected, "for {text}");
    }
}

fn shown(properties: &[Property]) -> Vec<String> {
    let value = |value: &Value| match value {
        Value::U64(u64::MAX) => "infinity".to_owned(),
        Value::U64(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Bool(on) => on.to_string(),
        other => format!("{other:?}"),
    };
    properties.iter().map(|(name, given)| format!("{name}={}", value(given))).collect()
}

#[track_caller]
fn check(limits: &Limits, version: Version, release: u32, expected: &[&str]) -> Limits {
    let told = unit_properties(limits, version, release, Current::default()).unwrap();
    assert_eq!(shown(&told.properties), expected);
    told.limits
}

fn sample() -> Limits {
    Limits {
        memory: Memory {
            limit: Some(100),
            reservation: Some(50),
            swap: Some(100),
            ..Memory::default()
        },
        cpu: Cpu {
            shares: Some(1024),
            quota: Some(50_000),
            period: Some(100_000),
            ..Cpu::default()
        },
        pids: Some(-1),
        io: Io { weight: Some(500), ..Io::default() },
        ..Limits::default()
    }
}

#[test]
fn limits_become_properties_of_either_version() {
    check(
        &sample(),
        Version::Two,
        252,
        &[
            "MemoryMax=100",
            "MemoryLow=50",
            "MemorySwapMax=0",
            "CPUWeight=100",
            "IOWeight=4950",
            "TasksMax=infinity",
            "CPUQuotaPeriodUSec=100000",
            "CPUQuotaPerSecUSec=500000",
        ],
    );
    check(
        &sample(),
        Version::One,
        239,
        &[
            "MemoryLimit=100",
            "CPUShares=1024",
            "BlockIOWeight=500",
            "TasksMax=infinity",
            "CPUQuotaPerSecUSec=500000",
        ],
    );
    check(&Limits::default(), Version::Two, 252, &[]);
}

#[test]
fn a_quota_is_rounded_up_to_a_hundredth_in_the_files_too() {
    let limits = |quota, period| Limits {
        cpu: Cpu { quota, period, ..Cpu::default() },
        ..Limits::default()
    };
    for (quota, period, held, each_second, left) in [
        (Some(50_000), Some(100_000), Current::default(), "500000", Some(50_000)),
        (Some(5_001), Some(100_000), Current::default(), "60000", Some(6_000)),
        (Some(-1), None, Current::default(), "infinity", Some(-1)),
        (
            Some(50_000),
            None,
            Current { period: Some(50_000), ..Current::default() },
            "1000000",
            Some(50_000),
        ),
        (None, Some(50_000), Current { quota: Some(25_000), ..Current::default() }, "500000", None),
    ] {
        let told = unit_properties(&limits(quota, period), Version::Two, 241, held).unwrap();
        assert_eq!(shown(&told.properties), [format!("CPUQuotaPerSecUSec={each_second}")]);
        assert_eq!(told.limits.cpu.quota, left, "for {quota:?} {period:?}");
    }
}

#[test]
fn an_idle_group_is_one_without_weight_where_systemd_knows_that() {
    let mut limits = Limits::default();
    limits.cpu.idle = Some(1);
    limits.cpu.shares = Some(2);
    check(&limits, Version::Two, 252, &["CPUWeight=0"]);
    check(&limits, Version::Two, 251, &["CPUWeight=1"]);
}

#[test]
fn processors_and_nodes_become_bits() {
    let mut limits = Limits::default();
    limits.cpu.cpus = Some("0-2,9".into());
    limits.cpu.mems = Some("0".into());
    let told = unit_properties(&limits, Version::Two, 252, Current::default()).unwrap();
    let expected = [
        ("AllowedCPUs".to_owned(), Value::bytes(&[0b111, 0b10])),
        ("AllowedMemoryNodes".to_owned(), Value::bytes(&[1])),
    ];
    assert_eq!(told.properties, expected);
    check(&limits, Version::Two, 243, &[]);
}

#[test]
fn unified_settings_become_properties_where_there_are_any() {
    let settings = [
        ("cpu.max", "20000 100000"),
        ("cpu.weight", "50"),
        ("hugetlb.2MB.max", "0"),
        ("io.weight", "default 70"),
        ("memory.high", "1000"),
        ("memory.max", "max"),
        ("memory.oom.group", "1"),
        ("pids.max", "0"),
    ];
    let unified = |settings: &[(&str, &str)]| Limits {
        unified: settings.iter().map(|(file, value)| ((*file).into(), (*value).into())).collect(),
        ..Limits::default()
    };
    check(
        &unified(&settings),
        Version::Two,
        252,
        &[
            "CPUQuotaPeriodUSec=100000",
            "CPUQuotaPerSecUSec=200000",
            "CPUWeight=50",
            "IOWeight=70",
            "MemoryHigh=1000",
            "MemoryMax=infinity",
            "TasksMax=1",
        ],
    );
    check(
        &unified(&[("cpu.idle", "1"), ("cpu.weight", "50")]),
        Version::Two,
        252,
        &["CPUWeight=0"],
    );
    let wrong = unified(&[("memory.max", "much")]);
    let refused = unit_properties(&wrong, Version::Two, 252, Current::default()).unwrap_err();
    assert!(refused.to_string().contains("memory.max"), "{refused}");
}

fn device(allow: bool, kind: DeviceKind, major: Option<u32>, minor: Option<u32>) -> DeviceRule {
    DeviceRule { allow, kind, major, minor, access: DeviceAccess::all() }
}

#[test]
fn devices_become_a_list_or_are_left_to_our_own_filter() {
    let list = |entries: &[&str]| {
        let entry = |path: &&str| {
            Value::Struct(vec![Value::Text((*path).into()), Value::Text("rwm".into())])
        };
        ("DeviceAllow".to_owned(), Value::Array("(ss)".into(), entries.iter().map(entry).collect()))
    };
    let policy = |policy: &str| ("DevicePolicy".to_owned(), Value::Text(policy.into()));
    let closed = device(false, DeviceKind::All, None, None);
    let open = device(true, DeviceKind::All, None, None);
    let null = device(true, DeviceKind::Character, Some(1), Some(3));
    let terminals = device(true, DeviceKind::Character, Some(136), None);
    let disks = device(true, DeviceKind::Block, None, None);
    let odd = device(true, DeviceKind::Block, None, Some(1));
    let listed = list(&["/dev/char/1:3", "char-136", "block-*"]);
    for (rules, version, expected) in [
        (
            vec![closed, null, terminals, disks],
            Version::Two,
            vec![list(&[]), policy("strict"), listed],
        ),
        (vec![open], Version::Two, vec![list(&[]), policy("auto")]),
        (vec![open], Version::One, vec![list(&[]), policy("strict")]),
        (vec![odd], Version::Two, vec![list(&[]), policy("auto")]),
    ] {
        let limits = Limits { devices: Some(rules), ..Limits::default() };
        let told = unit_properties(&limits, version, 252, Current::default()).unwrap();
        assert_eq!(told.properties, expected);
    }
}

#[test]
fn annotations_become_properties_in_microseconds() {
    let asked = |pairs: &[(&str, &str)]| {
        let map: BTreeMap<String, String> =
            pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        annotated(map.iter())
    };
    let found = asked(&[
        ("org.example", "x"),
        ("org.systemd.property.CollectMode", "'inactive'"),
        ("org.systemd.property.TimeoutStopSec", "2"),
        ("org.systemd.property.TimeoutStopUSec", "uint64 7"),
    ]);
    assert_eq!(
        shown(&found.unwrap()),
        ["CollectMode=inactive", "TimeoutStopUSec=2000000", "TimeoutStopUSec=7"]
    );
    for (key, value) in [
        ("org.systemd.property.X", "1"),
        ("org.systemd.property.Not-A-Name", "1"),
        ("org.systemd.property.TimeoutStopSec", "'soon'"),
        ("org.systemd.property.TimeoutStopSec", "-1"),
        ("org.systemd.property.CollectMode", "no quotes"),
    ] {
        assert_eq!(asked(&[(key, value)]).unwrap_err().0, key, "for {value}");
    }
}

const JOB: &str = "/org/freedesktop/systemd1/job/7";

/// What a systemd says, whose jobs end with `result`.
fn systemd(result: &'static str) -> impl Fn(&Asked) -> Says + Send + 'static {
    move |asked| match asked.member.as_str() {
        "Get" => {
            let text = match asked.values.get(1).and_then(Value::as_text) {
                Some("Version") => "252.1",
                _ => "/user.slice/manager",
            };
            Says::Values(vec![Value::Variant(Box::new(Value::Text(text.into())))])
        }
        "StartTransientUnit" | "StopUnit" => {
            let unit = asked.values.first().cloned().unwrap();
            let removed =
                vec![Value::U32(7), Value::Path(JOB.into()), unit, Value::Text(result.into())];
            Says::ThenSignal(vec![Value::Path(JOB.into())], "JobRemoved", removed)
        }
        _ => Says::Values(Vec::new()),
    }
}

fn connect(address: Address) -> Result<Manager, CgroupError> {
    Manager::connect_to(&[address], Duration::from_secs(5))
}

fn scope() -> Scope {
    Scope::parse("a-b.slice:p:n", "", "").unwrap()
}

#[test]
fn a_scope_is_started_changed_and_stopped_and_its_jobs_awaited() {
    let bus = FakeBus::start(systemd("done"));
    let mut manager = connect(Address::Path(bus.path.clone())).unwrap();
    assert_eq!(manager.version(), 252);
    let group = manager.group(&scope());
    assert_eq!(group, Path::new("/user.slice/manager/a.slice/a-b.slice/p-n.scope"));
    let properties = start_properties(&scope(), "a box", Version::Two, &[]);
    manager.start(&scope(), Pid::from_raw(9).unwrap(), properties).unwrap();
    manager.set("p-n.scope", vec![("TasksMax".into(), Value::U64(5))]).unwrap();
    manager.set("p-n.scope", Vec::new()).unwrap();
    manager.attach("p-n.scope", Pid::from_raw(10).unwrap()).unwrap();
    manager.stop("p-n.scope").unwrap();
    drop(manager);
    let asked = bus.finish();
    let names: Vec<&str> = asked.iter().map(|asked| asked.member.as_str()).collect();
    assert_eq!(
        names,
        [
            "Hello",
            "Get",
            "Get",
            "AddMatch",
            "Subscribe",
            "StartTransientUnit",
            "SetUnitProperties",
            "AttachProcessesToUnit",
            "AddMatch",
            "Subscribe",
            "StopUnit",
            "ResetFailedUnit",
        ]
    );
    let Value::Array(_, started) = &asked[5].values[2] else { panic!("{:?}", asked[5]) };
    let pids = Value::Array("u".into(), vec![Value::U32(9)]);
    let first = Value::Struct(vec![Value::Text("PIDs".into()), Value::Variant(Box::new(pids))]);
    assert_eq!(started[0], first);
    for name in ["Slice", "Delegate", "DefaultDependencies", "IOAccounting", "Description"] {
        let named = |value: &Value| matches!(value, Value::Struct(parts) if parts[0] == Value::Text(name.into()));
        assert_eq!(started.iter().filter(|value| named(value)).count(), 1, "{name}");
    }
}

#[test]
fn a_job_that_fails_is_told_and_leaves_no_unit() {
    let bus = FakeBus::start(systemd("failed"));
    let mut manager = connect(Address::Private(bus.path.clone())).unwrap();
    let error = manager.start(&scope(), Pid::from_raw(9).unwrap(), Vec::new()).unwrap_err();
    assert!(error.to_string().contains("p-n.scope: the job ended as \"failed\""), "{error}");
    drop(manager);
    let asked: Vec<String> = bus.finish().into_iter().map(|asked| asked.member).collect();
    assert_eq!(asked, ["Get", "Get", "StartTransientUnit", "StopUnit", "ResetFailedUnit"]);
}

#[test]
fn a_name_that_is_taken_is_reset_once_and_never_stopped() {
    let bus = FakeBus::start(|asked| match asked.member.as_str() {
        "StartTransientUnit" => Says::Error(UNIT_EXISTS, "p-n.scope already exists"),
        _ => systemd("done")(asked),
    });
    let mut manager = connect(Address::Private(bus.path.clone())).unwrap();
    let error = manager.start(&scope(), Pid::from_raw(9).unwrap(), Vec::new()).unwrap_err();
    assert!(matches!(error, CgroupError::Systemd { .. }), "{error}");
    drop(manager);
    let asked: Vec<String> = bus.finish().into_iter().map(|asked| asked.member).collect();
    let starts = ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"];
    assert_eq!(asked, [["Get"; 2].as_slice(), &starts].concat());
}

#[test]
fn without_a_systemd_the_error_says_so_and_what_to_do() {
    let error = connect(Address::Private("/run/nobody/listens".into())).unwrap_err().to_string();
    assert!(error.contains("none answers") && error.contains("--systemd-cgroup"), "{error}");
    assert!(matches!(
        Manager::connect(&Bus::User("tcp:host=x".into())),
        Err(CgroupError::NoSystemd { source: BusError::Address { .. } })
    ));
}

#[test]
fn a_unit_that_is_gone_is_stopped_already() {
    let bus = FakeBus::start(|asked| match asked.member.as_str() {
        "StopUnit" => Says::Error(NO_SUCH_UNIT, "Unit p-n.scope not loaded."),
        _ => systemd("done")(asked),
    });
    let mut manager = connect(Address::Private(bus.path.clone())).unwrap();
    manager.stop("p-n.scope").unwrap();
}
