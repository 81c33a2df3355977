//! What can go wrong on the way from a recipe to an image.

use std::io;
use std::path::PathBuf;

use carrack_content::ImageError;
use carrack_oci::archive::ArchiveError;
use jiff::Timestamp;

use super::{
    AccountsError, FetchError, RecipeError, ReleaseError, ResolveError, SignatureError, TreeError,
    UnpackError,
};

/// Why there is no image of a recipe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackagesError {
    /// The machine is of a kind that recipes do not know.
    #[error("this machine is neither amd64 nor arm64; name one of them under `archs`")]
    Architecture,
    /// The cache could not be used.
    #[error("using the cache of packages")]
    Cache(#[source] io::Error),
    /// A file of the host's apt configuration could not be read.
    #[error("reading {}", path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// There is nowhere to take packages from.
    #[error(
        "{} has no package sources for {architecture}; name some under `contents.repositories`",
        place.display()
    )]
    NoSources {
        /// The recipe, or the apt configuration.
        place: PathBuf,
        /// The processor.
        architecture: &'static str,
    },
    /// A repository of the recipe cannot be used.
    #[error("{place}: {reason}")]
    Repository {
        /// Where it is named.
        place: String,
        /// Why not.
        reason: String,
    },
    /// Nobody is trusted to sign for a source.
    #[error("{place}: there is no key for this source; name one with Signed-By")]
    NoKeys {
        /// Where the source is named.
        place: String,
    },
    /// No source could be asked.
    #[error("no package source answers: {}", reasons.join("; "))]
    Unanswered {
        /// Why, for each.
        reasons: Vec<String>,
    },
    /// A Release file is not signed by whom it should be.
    #[error("{release} is not believed")]
    Signature {
        /// Its address.
        release: String,
        /// What is wrong.
        source: SignatureError,
    },
    /// A Release file cannot be read.
    #[error("reading {release}")]
    Release {
        /// Its address.
        release: String,
        /// What is wrong.
        source: ReleaseError,
    },
    /// A Release file is out of date.
    #[error("{release} was valid until {until} only; is this mirror still kept up to date?")]
    Expired {
        /// Its address.
        release: String,
        /// Until when.
        until: Timestamp,
    },
    /// A Release file is of another suite than was asked for.
    #[error("{release} is of {found}, not of the suite `{asked}`")]
    OtherSuite {
        /// Its address.
        release: String,
        /// The suite of the source.
        asked: String,
        /// What it calls itself.
        found: String,
    },
    /// Something could not be downloaded.
    #[error("fetching packages")]
    Fetch(#[from] FetchError),
    /// An index cannot be read.
    #[error("reading the index {index}")]
    Index {
        /// Its address.
        index: String,
        /// What went wrong.
        source: io::Error,
    },
    /// There is no set of packages that fits.
    #[error("choosing packages for {}{}", recipe.display(), unanswered(silent))]
    Resolve {
        /// The recipe.
        recipe: PathBuf,
        /// Sources that did not answer, where the missing packages may be.
        silent: Vec<String>,
        /// What does not fit.
        source: Box<ResolveError>,
    },
    /// A package could not be unpacked.
    #[error("unpacking the package `{package}`")]
    Unpack {
        /// The package.
        package: String,
        /// What went wrong.
        source: UnpackError,
    },
    /// An account of the recipe cannot be made.
    #[error("making the accounts of {}", recipe.display())]
    Accounts {
        /// The recipe.
        recipe: PathBuf,
        /// What went wrong.
        source: AccountsError,
    },
    /// Something of our own or of the recipe could not be put into the image.
    #[error("putting together the image of {}", recipe.display())]
    Put {
        /// The recipe.
        recipe: PathBuf,
        /// What went wrong.
        source: TreeError,
    },
    /// The layer could not be written.
    #[error("writing the layer of {}", recipe.display())]
    Write {
        /// The recipe.
        recipe: PathBuf,
        /// What went wrong.
        source: ArchiveError,
    },
    /// The image could not be kept.
    #[error("keeping the image of {}", recipe.display())]
    Keep {
        /// The recipe.
        recipe: PathBuf,
        /// What went wrong.
        source: Box<ImageError>,
    },
    /// The time the image would be dated by is no time.
    #[error("{0} is no time an image may be dated by")]
    Epoch(i64),
}

impl PackagesError {
    pub(super) fn cache(source: io::Error) -> Self {
        Self::Cache(source)
    }
}

fn unanswered(silent: &[String]) -> String {
    match silent {
        [] => String::new(),
        _ => format!(" (some sources did not answer: {})", silent.join("; ")),
    }
}

/// Why a recipe's file gives no recipe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadRecipeError {
    /// The file cannot be read.
    #[error("reading the recipe {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// It says something wrong.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
}
