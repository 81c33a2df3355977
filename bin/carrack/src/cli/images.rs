//! `carrack images`, `save`, `load`, `tag`, `rmi`: the local store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use carrack_content::{CollectError, Images, LoadLimits};
use carrack_oci::{Digest, Reference};
use carrack_rootfs::Layers;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::daemon;
use crate::exit;
use crate::output::table::Table;
use crate::output::{self, Format, units};
use crate::settings::Settings;

/// Opens the store of these settings.
pub(crate) fn open(settings: &Settings) -> anyhow::Result<Images> {
    Ok(Images::open(settings.store())?)
}

/// Opens the unpacked layers beside it.
fn layers(settings: &Settings, images: &Images) -> anyhow::Result<Layers> {
    Ok(Layers::open(settings.root.join("rootfs/layers"), Arc::clone(images.blobs()))?)
}

/// Reads a name a person typed.
pub(crate) fn reference(text: &str) -> anyhow::Result<Reference> {
    let parsed = text.parse::<Reference>();
    parsed.map_err(|error| exit::usage(format!("`{text}` is not an image name: {error}")))
}

/// List images
#[derive(Debug, clap::Args)]
pub(crate) struct ImagesArgs {
    /// Digests only
    #[arg(short, long)]
    quiet: bool,
    /// Do not cut digests
    #[arg(long)]
    no_trunc: bool,
    /// How to print them
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Only images whose name has this in it
    name: Option<String>,
}

#[derive(Debug, Serialize)]
struct Line {
    name: String,
    digest: Digest,
    created: Option<String>,
    size: u64,
    platform: String,
}

impl ImagesArgs {
    pub(crate) fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let images = open(settings)?;
        let mut lines = Vec::new();
        for named in images.list()? {
            let name = named.reference.to_string();
            if self.name.as_ref().is_some_and(|part| !name.contains(part.as_str())) {
                continue;
            }
            let image = images.get(&named.digest)?;
            lines.push(Line {
                name,
                digest: named.digest,
                created: image.config.created.clone(),
                size: image.size,
                platform: format!("{}/{}", image.config.os, image.config.architecture),
            });
        }
        match (self.quiet, self.format) {
            (true, _) => lines.iter().for_each(|line| output::line(self.digest(line))),
            (false, Format::Json) => output::json(&lines)?,
            (false, Format::Table) => self.table(&lines).print(),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn table(&self, lines: &[Line]) -> Table {
        let mut table = Table::new(&["IMAGE", "DIGEST", "CREATED", "SIZE"]);
        for line in lines {
            let created = line.created.as_deref().map_or("-".to_owned(), age);
            table.row([line.name.clone(), self.digest(line), created, units::size(line.size)]);
        }
        table
    }

    fn digest(&self, line: &Line) -> String {
        if self.no_trunc {
            line.digest.to_string()
        } else {
            line.digest.hex().chars().take(12).collect()
        }
    }
}

/// How long ago an image says it was made; images made reproducibly say 1970.
fn age(created: &str) -> String {
    match created.parse::<Timestamp>() {
        Ok(moment) if moment.as_second() > 0 => {
            let elapsed = Timestamp::now().duration_since(moment);
            format!("{} ago", units::age(elapsed.try_into().unwrap_or_default()))
        }
        _ => "-".to_owned(),
    }
}

/// Everything known of an image, or `None` where there is none.
pub(crate) fn inspect(settings: &Settings, name: &str) -> anyhow::Result<Option<Value>> {
    if !settings.store().is_dir() {
        return Ok(None);
    }
    let images = open(settings)?;
    let Some(image) = images.find(name)? else { return Ok(None) };
    let names: Vec<String> = images
        .list()?
        .into_iter()
        .filter(|named| named.digest == image.digest)
        .map(|named| named.reference.to_string())
        .collect();
    let manifest: Value = serde_json::from_slice(&image.manifest.to_json())?;
    let config: Value = serde_json::from_slice(&image.config.to_json())?;
    Ok(Some(json!({
        "digest": image.digest, "names": names, "size": image.size,
        "manifest": manifest, "config": config,
    })))
}

/// Write images to an OCI archive
#[derive(Debug, clap::Args)]
pub(crate) struct SaveArgs {
    /// File to write [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Names of images
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

impl SaveArgs {
    pub(crate) fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let images = open(settings)?;
        let names = self.names.iter().map(|name| reference(name)).collect::<Result<Vec<_>, _>>()?;
        let saved = match &self.output {
            Some(path) => save_to(&images, &names, path)?,
            None if io::stdout().is_terminal() => {
                return Err(exit::usage("an archive is not for a terminal; name a file with -o"));
            }
            None => images.save(&names, BufWriter::new(io::stdout().lock()))?,
        };
        output::message(format_args!(
            "saved {} image(s), {}",
            saved.images,
            units::size(saved.bytes)
        ));
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes beside the file and moves it into place, so that a failure leaves no half archive.
fn save_to(
    images: &Images,
    names: &[Reference],
    path: &std::path::Path,
) -> anyhow::Result<carrack_content::Saved> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(std::path::Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)
        .with_context(|| format!("making a file in {}", directory.display()))?;
    let saved = images.save(names, BufWriter::new(file.as_file_mut()))?;
    file.persist(path).with_context(|| format!("writing {}", path.display()))?;
    Ok(saved)
}

/// Read images from an OCI or Docker archive
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// File to read [default: stdin]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// How to print what was loaded
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

impl LoadArgs {
    pub(crate) fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let images = open(settings)?;
        let input: Box<dyn Read> = match &self.input {
            Some(path) => {
                let file =
                    File::open(path).with_context(|| format!("opening {}", path.display()))?;
                Box::new(BufReader::new(file))
            }
            None => Box::new(io::stdin().lock()),
        };
        let from =
            self.input.as_ref().map_or("stdin".to_owned(), |path| path.display().to_string());
        let layers = layers(settings, &images)?;
        let loaded = images
            .load_checked(input, &LoadLimits::default(), |image| {
                for (layer, diff_id) in image.layers() {
                    layers.unpacked(layer, diff_id)?;
                }
                Ok(())
            })
            .with_context(|| format!("loading {from}"))?;
        if self.format == Format::Json {
            let value = loaded.iter().map(|image| {
                let names: Vec<String> = image.references.iter().map(ToString::to_string).collect();
                json!({"digest": image.digest, "names": names})
            });
            output::json(&value.collect::<Vec<_>>())?;
            return Ok(ExitCode::SUCCESS);
        }
        for image in &loaded {
            match image.references.as_slice() {
                [] => output::line(format_args!("Loaded image: {}", image.digest)),
                names => {
                    names.iter().for_each(|name| output::line(format_args!("Loaded image: {name}")))
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Give an image another name
#[derive(Debug, clap::Args)]
pub(crate) struct TagArgs {
    /// Name or digest of the image
    source: String,
    /// Its new name
    target: String,
}

impl TagArgs {
    pub(crate) fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let images = open(settings)?;
        let image = images.find(&self.source)?;
        let image = image.with_context(|| format!("there is no image `{}`", self.source))?;
        images.tag(&reference(&self.target)?, &image.digest)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Remove image names, and what nothing else uses
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// Remove names that containers were made from, too; the containers keep what they need
    #[arg(short, long)]
    force: bool,
    /// Names or digests of images
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

impl RemoveArgs {
    pub(crate) async fn execute(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let images = open(settings)?;
        let used = used(settings).await?;
        let mut code = ExitCode::SUCCESS;
        for name in &self.names {
            if let Err(error) = self.remove(&images, &used, name) {
                output::failure(&error);
                code = ExitCode::FAILURE;
            }
        }
        let keep: Vec<Digest> = used.into_keys().collect();
        let layers = layers(settings, &images)?;
        match images.gc_with(&keep, |needed| Ok(layers.retain(needed).map(|_| ())?)) {
            Ok(collected) if collected.blobs > 0 => {
                output::message(format_args!("freed {}", units::size(collected.bytes)));
            }
            Ok(_) => {}
            Err(CollectError::InUse) => {
                output::message(
                    "another command is at work in the store; what is not used is freed later",
                );
            }
            Err(error) => return Err(error.into()),
        }
        Ok(code)
    }

    fn remove(
        &self,
        images: &Images,
        used: &BTreeMap<Digest, String>,
        name: &str,
    ) -> anyhow::Result<()> {
        let image = images.find(name)?.with_context(|| format!("there is no image `{name}`"))?;
        if let Some(container) = used.get(&image.digest)
            && !self.force
        {
            anyhow::bail!(
                "image `{name}` is used by container `{container}`; remove the container first, or use -f"
            );
        }
        let by_name = reference(name).ok().filter(|name| name.digest().is_none());
        if let Some(by_name) = by_name
            && images.untag(&by_name)?.is_some()
        {
            output::line(format_args!("Untagged: {by_name}"));
            return Ok(());
        }
        for named in images.list()?.into_iter().filter(|named| named.digest == image.digest) {
            images.untag(&named.reference)?;
            output::line(format_args!("Untagged: {}", named.reference));
        }
        Ok(())
    }
}

/// The images containers were made from, each with one such container.
async fn used(settings: &Settings) -> anyhow::Result<BTreeMap<Digest, String>> {
    if !settings.root.join("engine").exists() {
        return Ok(BTreeMap::new());
    }
    let containers = daemon::client(settings).await?.ps(true, None).await?;
    Ok(containers.into_iter().map(|one| (one.image_digest, one.name)).collect())
}
