//! What earlier builds have done, by exactly what they did it to.
//!
//! ```text
//! layers below + step + inputs' content ──key──▶ Record: the layer it made, or that it made none
//! ```
//!
//! A key covers the content of every layer below (as diff ids), the step with
//! every value expanded, and the content, mode and links of every file it
//! brings in. It covers no name and no place in a Dockerfile, so two builds
//! that come to the same point share what follows.
//!
//! A record is written once its layer is safe in the store, in one atomic step.
//! One whose layer was collected since counts as absent.

use std::io;
use std::path::PathBuf;

use carrack_content::Layer;
use carrack_oci::{Descriptor, Digest, Hasher};
use serde::{Deserialize, Serialize};

/// Changes when the meaning of a key or the effect of a step changes.
const GENERATION: &[u8] = b"carrack build 1";

/// More than any record needs.
const LARGEST_RECORD: u64 = 64 * 1024;

/// The version of [`Record`] that is read and written.
const RECORD_VERSION: u32 = 1;

/// What a step left behind, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    layer: Option<KeptLayer>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptLayer {
    descriptor: Descriptor,
    diff_id: Digest,
}

/// What a step left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It changed no file.
    Nothing,
    /// It made this layer.
    Layer(Box<Layer>),
}

/// Everything that decides what a step makes, fed in piece by piece.
#[derive(Debug)]
pub(crate) struct Key(Hasher);

impl Key {
    /// A step on top of these layers, with times no later than `epoch`.
    pub(crate) fn new(below: &[Layer], epoch: i64) -> Self {
        let mut key = Self(Hasher::default());
        key.bytes(GENERATION);
        key.text(&epoch.to_string());
        key.list(below.iter().map(|layer| layer.diff_id.to_string()));
        key
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        self.0.update(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(crate) fn list(&mut self, items: impl IntoIterator<Item = impl AsRef<str>>) {
        let items: Vec<_> = items.into_iter().collect();
        self.text(&items.len().to_string());
        for item in items {
            self.text(item.as_ref());
        }
    }

    pub(crate) fn optional(&mut self, item: Option<&str>) {
        self.list(item);
    }

    pub(crate) fn finish(self) -> Digest {
        self.0.finish()
    }
}

/// The records, a file each.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
}

impl Cache {
    pub(crate) fn open(directory: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        Ok(Self { directory })
    }

    /// What was kept under `key`. A record that cannot be read is no record.
    pub(crate) fn get(&self, key: &Digest) -> Option<Effect> {
        let bytes = carrack_linux::fs::read_bounded(&self.path(key), LARGEST_RECORD).ok()?;
        let record: Record = serde_json::from_slice(&bytes).ok()?;
        if record.version != RECORD_VERSION {
            return None;
        }
        Some(match record.layer {
            None => Effect::Nothing,
            Some(KeptLayer { descriptor, diff_id }) => {
                Effect::Layer(Box::new(Layer { descriptor, diff_id }))
            }
        })
    }

    pub(crate) fn put(&self, key: &Digest, effect: &Effect) -> io::Result<()> {
        let layer = match effect {
            Effect::Nothing => None,
            Effect::Layer(layer) => Some(KeptLayer {
                descriptor: layer.descriptor.clone(),
                diff_id: layer.diff_id.clone(),
            }),
        };
        let record = Record { version: RECORD_VERSION, layer };
        let bytes = serde_json::to_vec(&record)?;
        carrack_linux::fs::write_atomic(&self.path(key), &bytes, 0o600)
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.directory.join(key.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(content: &str) -> Layer {
        let descriptor = Descriptor::of(carrack_oci::MediaType::LAYER, content.as_bytes());
        Layer { diff_id: descriptor.digest.clone(), descriptor }
    }

    #[test]
    fn a_record_comes_back_as_it_was_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(directory.path().join("cache")).expect("opens");
        let key = Key::new(&[layer("a")], 0).finish();
        assert_eq!(cache.get(&key), None);
        for effect in [Effect::Layer(Box::new(layer("b"))), Effect::Nothing] {
            cache.put(&key, &effect).expect("keeps");
            assert_eq!(cache.get(&key), Some(effect));
        }
        std::fs::write(cache.path(&key), "{").expect("a torn record");
        assert_eq!(cache.get(&key), None);
    }

    #[test]
    fn where_one_item_ends_is_part_of_the_key() {
        let key = |items: &[&str], optional| {
            let mut key = Key::new(&[], 0);
            key.list(items);
            key.optional(optional);
            key.finish()
        };
        assert_ne!(key(&["ab", "c"], None), key(&["a", "bc"], None));
        assert_ne!(key(&["a"], Some("")), key(&["a"], None));
        assert_ne!(Key::new(&[layer("a")], 0).finish(), Key::new(&[layer("b")], 0).finish());
        assert_ne!(Key::new(&[], 0).finish(), Key::new(&[], 1).finish());
    }
}
