//! A small signed package archive, served on loopback.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use carrack_oci::archive::{Entry, Kind, Writer};

/// A package to be made.
pub(crate) struct Deb {
    name: String,
    version: String,
    fields: String,
    conffiles: String,
    entries: Vec<(Entry, String)>,
}

impl Deb {
    pub(crate) fn new(name: &str, version: &str) -> Self {
        let root = Entry::new("./", Kind::Directory, 0o755);
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            fields: String::new(),
            conffiles: String::new(),
            entries: vec![(root, String::new())],
        }
    }

    pub(crate) fn field(mut self, line: &str) -> Self {
        self.fields += &format!("{line}\n");
        self
    }

    pub(crate) fn file(mut self, path: &str, content: &str) -> Self {
        let entry = Entry::file(format!("./{path}"), 0o644, content.len() as u64);
        self.entries.push((entry, content.to_owned()));
        self
    }

    pub(crate) fn conffile(mut self, path: &str) -> Self {
        self.conffiles += &format!("{path}\n");
        self
    }

    /// Something a package builder would not make.
    pub(crate) fn raw(mut self, entry: Entry) -> Self {
        self.entries.push((entry, String::new()));
        self
    }

    /// The package file. Written by hand, because the packager refuses what some
    /// tests need; that `dpkg-deb` can read it is checked when it is indexed.
    fn bytes(&self) -> Vec<u8> {
        let control = format!(
            "Package: {}\nVersion: {}\nArchitecture: all\nMaintainer: T <t@a.test>\n{}Description: a test\n more of it\n",
            self.name, self.version, self.fields
        );
        let mut files = vec![(Entry::file("./control", 0o644, control.len() as u64), control)];
        if !self.conffiles.is_empty() {
            let entry = Entry::file("./conffiles", 0o644, self.conffiles.len() as u64);
            files.push((entry, self.conffiles.clone()));
        }
        let mut bytes = b"!<arch>\n".to_vec();
        for (name, content) in [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar", tar(&files)),
            ("data.tar", tar(&self.entries)),
        ] {
            let header = format!(
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                0,
                0,
                0,
                100_644,
                content.len()
            );
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(&content);
        }
        bytes
    }
}

fn tar(entries: &[(Entry, String)]) -> Vec<u8> {
    let mut archive = Writer::new(Vec::new());
    for (entry, content) in entries {
        archive.append(entry, content.as_bytes()).unwrap();
    }
    archive.finish().unwrap()
}

/// An archive with one suite, `stable`, and one component, `main`.
pub(crate) struct Archive {
    directory: tempfile::TempDir,
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    server: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Archive {
    pub(crate) fn new(debs: &[Deb]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, stopping) = <(Arc<AtomicUsize>, Arc<AtomicBool>)>::default();
        let root = directory.path().join("archive");
        let (counted, stopped) = (Arc::clone(&requests), Arc::clone(&stopping));
        let server = std::thread::spawn(move || serve(&listener, &root, &counted, &stopped));
        let server = std::sync::Mutex::new(Some(server));
        let archive = Self { directory, address, requests, stopping, server };
        archive.make_key();
        for deb in debs {
            archive.write_deb(deb);
        }
        archive.sign_with("");
        archive
    }

    /// Adds a package and signs anew.
    pub(crate) fn add(&self, deb: &Deb) {
        self.write_deb(deb);
        self.sign_with("");
    }

    /// The line that names this archive in a `sources.list`.
    pub(crate) fn line(&self) -> String {
        format!("deb [{}] http://{}/ stable main", self.signed_by(), self.address)
    }

    pub(crate) fn signed_by(&self) -> String {
        format!("signed-by={}", self.key().display())
    }

    /// The file with the public key.
    pub(crate) fn key(&self) -> PathBuf {
        self.directory.path().join("key.gpg")
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Trusts another archive's key in place of its own.
    pub(crate) fn trust_instead(&self, other: &Self) {
        fs::copy(other.key(), self.key()).unwrap();
    }

    /// Changes one byte in the middle of a file.
    pub(crate) fn tamper(&self, name: &str) {
        let name = name.replace("binary-all-and-own", &format!("binary-{}", architecture()));
        let path = self.path(&name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn append(&self, name: &str, more: &[u8]) {
        let mut file = fs::OpenOptions::new().append(true).open(self.path(name)).unwrap();
        file.write_all(more).unwrap();
    }

    pub(crate) fn replace(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from));
        fs::write(self.path(name), text.replace(from, to)).unwrap();
    }

    pub(crate) fn surround(&self, name: &str, place: &str, text: &str) {
        let signed = fs::read_to_string(self.path(name)).unwrap();
        let text = if place == "before" { format!("{text}{signed}") } else { signed + text };
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    pub(crate) fn copy(&self, from: &str, to: &str) {
        fs::create_dir_all(self.path(to).parent().unwrap()).unwrap();
        fs::copy(self.path(from), self.path(to)).unwrap();
    }

    /// Writes indexes and Release file and signs them. `fields` come first, so that
    /// one of them stands in for what would be written otherwise.
    pub(crate) fn sign_with(&self, fields: &str) {
        let root = self.path("");
        let binary = format!("dists/stable/main/binary-{}", architecture());
        fs::create_dir_all(root.join(&binary)).unwrap();
        let packages =
            run(Command::new("apt-ftparchive").args(["packages", "pool"]).current_dir(&root));
        fs::write(root.join(&binary).join("Packages"), packages).unwrap();
        run(Command::new("xz").args(["--force", "Packages"]).current_dir(root.join(&binary)));
        for old in ["Release", "InRelease"] {
            fs::remove_file(root.join("dists/stable").join(old)).ok();
        }
        let release = run(Command::new("apt-ftparchive")
            .args(["release", "dists/stable"])
            .args(["-o", "APT::FTPArchive::Release::Suite=stable"])
            .current_dir(&root));
        let release = fields.to_owned() + &String::from_utf8(release).unwrap();
        fs::write(root.join("dists/stable/Release"), release).unwrap();
        run(self
            .gpg()
            .args(["--clearsign", "--output", "InRelease", "Release"])
            .current_dir(root.join("dists/stable")));
    }

    /// Answers nothing from here on.
    pub(crate) fn stop(&self) {
        let Some(server) = self.server.lock().unwrap().take() else { return };
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the server from its wait.
        TcpStream::connect(self.address).ok();
        server.join().unwrap();
    }

    fn make_key(&self) {
        let home = self.gpg_home();
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir_all(self.path("pool")).unwrap();
        run(self.gpg().args([
            "--passphrase",
            "",
            "--quick-gen-key",
            "t@a.test",
            "ed25519",
            "sign",
            "1y",
        ]));
        let key = run(self.gpg().arg("--export"));
        fs::write(self.key(), key).unwrap();
    }

    fn write_deb(&self, deb: &Deb) {
        let name = format!("pool/{}_{}.deb", deb.name, deb.version);
        fs::write(self.path(&name), deb.bytes()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("archive").join(name)
    }

    fn gpg_home(&self) -> PathBuf {
        self.directory.path().join("gpg")
    }

    fn gpg(&self) -> Command {
        let mut command = Command::new("gpg");
        command.args(["--batch", "--quiet", "--homedir"]).arg(self.gpg_home());
        command
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        self.stop();
        // gpg leaves an agent behind for each home.
        let agent = ["--kill", "gpg-agent"];
        Command::new("gpgconf").arg("--homedir").arg(self.gpg_home()).args(agent).status().ok();
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    output.stdout
}

/// Serves files, one connection after another.
fn serve(listener: &TcpListener, root: &Path, requests: &AtomicUsize, stopping: &AtomicBool) {
    for stream in listener.incoming() {
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        // A client that hangs up in the middle is what some tests are about.
        stream.and_then(|stream| answer(stream, root, requests)).ok();
    }
}

fn answer(stream: TcpStream, root: &Path, requests: &AtomicUsize) -> std::io::Result<()> {
    let mut lines = BufReader::new(&stream).lines();
    let Some(first) = lines.next().transpose()? else { return Ok(()) };
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    requests.fetch_add(1, Ordering::SeqCst);
    let name = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let (status, body) = match fs::read(root.join(name)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    (&stream).write_all(head.as_bytes())?;
    (&stream).write_all(&body)
}
