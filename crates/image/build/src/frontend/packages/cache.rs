//! What was downloaded before: package files and indexes by digest, Release files
//! by address, and which image a recipe came to.
//!
//! Nothing read from here is believed: digests are computed and signatures checked
//! again. A file appears whole, by a rename; one that a killed process left
//! unfinished is swept by the next that opens the cache.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use carrack_oci::{Algorithm, Digest, Hasher};

const BLOBS: &str = "sha256";
const RELEASES: &str = "releases";
const RESULTS: &str = "results";
const UNFINISHED: &str = "unfinished";
const CHUNK: usize = 256 * 1024;

/// Numbers the unfinished files of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A directory of downloads.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
}

/// A file on its way into the cache. Dropped, it is removed.
#[derive(Debug)]
pub(crate) struct Unfinished {
    path: PathBuf,
    file: File,
}

impl Cache {
    /// Opens the cache, making it when absent, and sweeps what dead processes left.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        for part in [BLOBS, RELEASES, RESULTS, UNFINISHED] {
            fs::create_dir_all(directory.join(part))?;
        }
        let cache = Self { directory: directory.to_owned() };
        cache.sweep()?;
        Ok(cache)
    }

    /// The file with this digest, when it is here and has it still.
    pub(crate) fn blob(&self, digest: &Digest) -> io::Result<Option<File>> {
        let path = self.blob_path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if digest_of(&file)? == *digest {
            return File::open(&path).map(Some);
        }
        fs::remove_file(&path)?;
        Ok(None)
    }

    /// Keeps a finished file under its digest.
    pub(crate) fn keep_blob(&self, file: Unfinished, digest: &Digest) -> io::Result<()> {
        file.rename(&self.blob_path(digest))
    }

    /// The Release file last fetched from an address, and how old it is.
    pub(crate) fn release(&self, address: &str) -> io::Result<Option<(String, Duration)>> {
        let path = self.release_path(address);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let fetched = fs::metadata(&path)?.modified()?;
                let age = SystemTime::now().duration_since(fetched).unwrap_or(Duration::MAX);
                Ok(Some((text, age)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps a Release file.
    pub(crate) fn keep_release(&self, address: &str, text: &str) -> io::Result<()> {
        self.write(&self.release_path(address), text.as_bytes())
    }

    /// The manifest a recipe came to, by everything that decided it.
    pub(crate) fn result(&self, key: &Digest) -> io::Result<Option<Digest>> {
        match fs::read_to_string(self.directory.join(RESULTS).join(key.hex())) {
            Ok(text) => Ok(text.parse().ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps the manifest a recipe came to.
    pub(crate) fn keep_result(&self, key: &Digest, manifest: &Digest) -> io::Result<()> {
        let path = self.directory.join(RESULTS).join(key.hex());
        self.write(&path, manifest.to_string().as_bytes())
    }

    /// A new file that no one else sees.
    pub(crate) fn unfinished(&self) -> io::Result<Unfinished> {
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{number}", std::process::id());
            let path = self.directory.join(UNFINISHED).join(name);
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            file.lock()?;
            // Swept by another process before it was locked? Then it is lost; make another.
            if path.try_exists()? {
                return Ok(Unfinished { path, file });
            }
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.unfinished()?;
        file.write_all(bytes)?;
        file.rename(path)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(BLOBS).join(digest.hex())
    }

    fn release_path(&self, address: &str) -> PathBuf {
        self.directory.join(RELEASES).join(Digest::of(address).hex())
    }

    /// Removes unfinished files that no living process holds locked.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.directory.join(UNFINISHED))? {
            let path = entry?.path();
            let abandoned = match File::open(&path) {
                Ok(file) => file.try_lock().is_ok(),
                Err(_) => false,
            };
            if abandoned {
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }
}

impl Unfinished {
    /// Makes the file durable and moves it to its place.
    fn rename(self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }

    /// The file itself, already without a name: gone when closed.
    pub(crate) fn into_nameless(self) -> io::Result<File> {
        self.file.try_clone()
    }
}

impl io::Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Renamed already when all went well; otherwise the next sweep tries again.
        fs::remove_file(&self.path).ok();
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn digest_of(mut file: &File) -> io::Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(chunk.get(..count).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_that_changed_on_disk_is_not_given_out() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        let digest = Digest::of(b"content");
        let mut file = cache.unfinished().unwrap();
        file.write_all(b"content").unwrap();
        cache.keep_blob(file, &digest).unwrap();
        assert!(cache.blob(&digest).unwrap().is_some());
        fs::write(cache.blob_path(&digest), b"tampered").unwrap();
        assert!(cache.blob(&digest).unwrap().is_none());
        assert!(!cache.blob_path(&digest).exists());
    }

    #[test]
    fn unfinished_files_of_the_dead_are_swept_and_of_the_living_kept() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        let living = cache.unfinished().unwrap();
        let dead = directory.path().join(UNFINISHED).join("1-1");
        fs::write(&dead, b"half").unwrap();
        Cache::open(directory.path()).unwrap();
        assert!(!dead.exists());
        assert!(living.path.exists());
    }

    #[test]
    fn what_was_kept_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        assert!(cache.release("http://a/").unwrap().is_none());
        cache.keep_release("http://a/", "text").unwrap();
        assert_eq!(cache.release("http://a/").unwrap().unwrap().0, "text");
        let (key, manifest) = (Digest::of(b"key"), Digest::of(b"manifest"));
        assert_eq!(cache.result(&key).unwrap(), None);
        cache.keep_result(&key, &manifest).unwrap();
        assert_eq!(cache.result(&key).unwrap(), Some(manifest));
    }
}
