//! Sockets opened in another network namespace stay there. Needs root.

#![expect(clippy::print_stderr, reason = "a test that skips says why")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use carrack_net::namespace::{self, NetworkNamespace};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A named network namespace with loopback up, removed when dropped.
struct Named(String);

impl Named {
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("carrack-net-{}-{count}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("skipped: making a network namespace needs root and iproute2");
            return None;
        }
        let named = Self(name);
        let up = ["-n", &named.0, "link", "set", "lo", "up"];
        assert!(Command::new("ip").args(up).status().expect("ip").success());
        Some(named)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.0)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", &self.0]).status().expect("ip");
    }
}

#[tokio::test]
async fn a_socket_is_reached_from_within_its_namespace_and_from_nowhere_else() {
    let Some(named) = Named::new() else { return };
    let inside = NetworkNamespace::open(&named.path()).expect("opens");
    let listener = inside.listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("listens");
    let address = listener.local_addr().expect("address");
    let (client, accepted) = tokio::join!(inside.connect(address, 0x539), listener.accept());
    let mut server = accepted.expect("accepts").0;
    let mut client = client.expect("connects");
    client.write_all(b"hello").await.expect("writes");
    let mut bytes = [0; 5];
    server.read_exact(&mut bytes).await.expect("reads");
    assert_eq!(&bytes, b"hello");
    assert_eq!(socket2::SockRef::from(&client).mark().expect("mark"), 0x539);
    let elsewhere = namespace::listen(address);
    assert!(elsewhere.is_ok(), "the same address is free outside: {elsewhere:?}");
}

#[test]
fn the_thread_is_back_home_even_after_a_panic() {
    let Some(named) = Named::new() else { return };
    let inside = NetworkNamespace::open(&named.path()).expect("opens");
    let here = || std::fs::read_link("/proc/thread-self/ns/net").expect("link");
    let before = here();
    let there = inside.run(|| Ok(here())).expect("runs");
    assert_ne!(there, before);
    assert!(there.to_string_lossy().contains(&inside.inode().to_string()));
    let outcome =
        std::panic::catch_unwind(|| inside.run(|| -> std::io::Result<()> { panic!("on purpose") }));
    assert!(outcome.is_err());
    assert_eq!(here(), before);
}
