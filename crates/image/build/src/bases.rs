//! The images a build starts and copies from.

use std::collections::BTreeMap;

use carrack_content::{Image, Layer};
use carrack_oci::{ExecutionConfig, MediaType, Platform};

use crate::error::BuildError;
use crate::graph::Origin;

/// An image at hand.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) image: Image,
    pub(crate) layers: Vec<Layer>,
}

/// Everything that a build's names stand for.
#[derive(Debug, Default)]
pub(crate) struct Bases(BTreeMap<Origin, Base>);

impl Bases {
    pub(crate) fn insert(
        &mut self,
        origin: Origin,
        name: &str,
        image: Image,
        platform: &Platform,
    ) -> Result<(), BuildError> {
        let refused = |why: String| BuildError::Base { name: name.to_owned(), why };
        let its = image.config.platform();
        if !its.runs_on(platform) {
            return Err(refused(format!("is for {its}, and this machine is {platform}")));
        }
        if has_triggers(&image.config.config) {
            return Err(refused("has ONBUILD triggers, which are not supported".to_owned()));
        }
        let layers = layers(&image);
        self.0.insert(origin, Base { image, layers });
        Ok(())
    }

    pub(crate) fn get(&self, origin: &Origin) -> Option<&Base> {
        self.0.get(origin)
    }

    pub(crate) fn layers(&self, origin: &Origin) -> &[Layer] {
        self.get(origin).map_or(&[], |base| &base.layers)
    }

    pub(crate) fn configs(&self) -> BTreeMap<Origin, ExecutionConfig> {
        let config =
            |(origin, base): (&Origin, &Base)| (origin.clone(), base.image.config.config.clone());
        self.0.iter().map(config).collect()
    }
}

fn has_triggers(config: &ExecutionConfig) -> bool {
    let triggers = config.extra.get("OnBuild").and_then(serde_json::Value::as_array);
    triggers.is_some_and(|triggers| !triggers.is_empty())
}

/// The layers, by OCI's names for what they are.
fn layers(image: &Image) -> Vec<Layer> {
    let layer = |(descriptor, diff_id): (&carrack_oci::Descriptor, &carrack_oci::Digest)| {
        let mut descriptor = descriptor.clone();
        for (docker, oci) in [
            (MediaType::DOCKER_LAYER, MediaType::LAYER),
            (MediaType::DOCKER_LAYER_GZIP, MediaType::LAYER_GZIP),
            (MediaType::DOCKER_LAYER_ZSTD, MediaType::LAYER_ZSTD),
        ] {
            if descriptor.media_type == docker {
                descriptor.media_type = oci;
            }
        }
        Layer { descriptor, diff_id: diff_id.clone() }
    };
    image.layers().map(layer).collect()
}
