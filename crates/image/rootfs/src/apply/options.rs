//! How an archive is unpacked, and when to stop.

/// How an archive is unpacked.
#[derive(Clone, Debug)]
pub struct ApplyOptions {
    /// When to stop.
    pub limits: Limits,
    /// What `.wh.` names mean.
    pub whiteouts: Whiteouts,
    /// What becomes of device nodes.
    pub devices: Devices,
    /// What becomes of an entry whose path leads through a symbolic link.
    pub links: Links,
}

impl ApplyOptions {
    /// For a layer that becomes the lower directory of an overlay.
    #[must_use]
    pub fn layer() -> Self {
        Self {
            limits: Limits::default(),
            whiteouts: Whiteouts::Overlay,
            devices: Devices::Refuse,
            links: Links::Refuse,
        }
    }

    /// For an archive that is unpacked into a root filesystem that already has
    /// something in it: its links are followed, inside the root.
    #[must_use]
    pub fn archive() -> Self {
        Self { whiteouts: Whiteouts::Refuse, links: Links::FollowInside, ..Self::layer() }
    }
}

/// How much an archive may unpack to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of content in all its files together.
    pub bytes: u64,
    /// Entries, of whatever kind.
    pub entries: u64,
    /// How many times its compressed size it may unpack to, beyond
    /// [`Limits::FREE`].
    pub ratio: u64,
}

impl Limits {
    /// What a layer may unpack to however small it is.
    pub const FREE: u64 = 1 << 30;

    /// These limits for a layer that has `size` bytes compressed.
    #[must_use]
    pub fn for_size(self, size: u64) -> Self {
        let fair = Self::FREE.saturating_add(size.saturating_mul(self.ratio));
        Self { bytes: self.bytes.min(fair), ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 2_000_000, ratio: 200 }
    }
}

/// What names that start with `.wh.` mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// They become what overlayfs uses in their place.
    Overlay,
    /// They are refused: outside a layer they would come to mean something later.
    Refuse,
}

/// What becomes of device nodes.
///
/// A container gets its devices from the runtime, under a `/dev` of its own, and a
/// node in an image is at best useless. Nothing needs them, so the default is to
/// say no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// They are refused.
    Refuse,
    /// They are created, all but 0/0, which overlayfs takes for a whiteout.
    Create,
}

/// What becomes of an entry whose path leads through a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// It is refused. No layer made by comparing two trees has one.
    Refuse,
    /// The link is followed with the root as its `/`, as a process inside would.
    FollowInside,
}
