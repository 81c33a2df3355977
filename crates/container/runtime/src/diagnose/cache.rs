//! `/etc/ld.so.cache`: where the loader of glibc was told that libraries are.

/// A cache larger than this is not read.
pub(super) const MAX_CACHE: u64 = 8 << 20;

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;
const ENTRY: usize = 24;
const MAX_ENTRIES: usize = 100_000;

/// Every path that the cache gives for a library of this name.
///
/// Numbers are in the byte order of the machine that wrote it; one of the other order has
/// nothing to say to programs that run here.
pub fn lookup(cache: &[u8], library: &[u8]) -> Vec<Vec<u8>> {
    // An older format may come in front.
    let begin = cache.windows(MAGIC.len()).position(|bytes| bytes == MAGIC);
    let Some(cache) = begin.and_then(|begin| cache.get(begin..)) else { return Vec::new() };
    let number = |at: usize| {
        let bytes: [u8; 4] = cache.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_ne_bytes(bytes)).ok()
    };
    let text = |at: usize| cache.get(at..)?.split(|&byte| byte == 0).next();
    let count = number(MAGIC.len()).unwrap_or(0).min(MAX_ENTRIES);
    let entries = (0..count).map_while(|index| {
        let at = HEADER + index * ENTRY;
        Some((number(at + 4)?, number(at + 8)?))
    });
    entries
        .filter(|&(key, _)| text(key) == Some(library))
        .filter_map(|(_, value)| text(value).map(<[u8]>::to_vec))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(&str, &str)]) -> Vec<u8> {
        let count = u32::try_from(entries.len()).unwrap();
        let mut strings = Vec::new();
        let mut table = Vec::new();
        let base = HEADER + ENTRY * entries.len();
        let mut add = |text: &str| {
            let at = u32::try_from(base + strings.len()).unwrap();
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            at
        };
        for (key, value) in entries {
            let (key, value) = (add(key), add(value));
            table.extend([0x303_u32, key, value, 0, 0, 0].map(u32::to_ne_bytes).concat());
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend(count.to_ne_bytes());
        bytes.resize(HEADER, 0);
        [bytes, table, strings].concat()
    }

    #[test]
    fn a_library_is_found_by_its_whole_name() {
        let cache = cache(&[("libz.so.1", "/lib/libz.so.1"), ("libz.so.1", "/opt/libz.so.1")]);
        assert_eq!(lookup(&cache, b"libz.so.1"), [&b"/lib/libz.so.1"[..], b"/opt/libz.so.1"]);
        assert!(lookup(&cache, b"libz.so").is_empty());
        let behind = [b"ld.so-1.7.0\0".as_slice(), &cache].concat();
        assert_eq!(lookup(&behind, b"libz.so.1").len(), 2);
    }

    #[test]
    fn a_cache_cut_short_gives_what_it_has() {
        let cache = cache(&[("libz.so.1", "/lib/libz.so.1")]);
        for length in 0..cache.len() {
            lookup(&cache[..length], b"libz.so.1");
        }
    }
}
