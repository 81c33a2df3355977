//! A solved graph made into an image in the store.

use carrack_content::Images;
use carrack_oci::{History, ImageConfig, Platform};

use crate::bases::Bases;
use crate::error::BuildError;
use crate::graph::{Graph, Origin, PlannedStage};
use crate::request::{BuildRequest, Built};
use crate::solve::Solved;

/// Writes configuration and manifest of the target, then its names.
pub(crate) fn export(
    images: &Images,
    request: &BuildRequest,
    platform: &Platform,
    bases: &Bases,
    graph: &Graph,
    solved: Solved,
) -> Result<Built, BuildError> {
    let Some(target) = graph.stages.last() else {
        return Err(BuildError::Dockerfile(Vec::new()));
    };
    let created = timestamp(request.source_date_epoch.unwrap_or(0));
    let layers = solved.stages.get(&target.index).map(|stage| &stage.layers[..]).unwrap_or(&[]);
    let mut config = ImageConfig::new(platform);
    config.created = Some(created.clone());
    config.config = target.config.clone();
    config.config.labels.extend(request.labels.clone());
    config.history = history(target, graph, bases, &solved, &created);
    let digest = images.put_image(config, layers).map_err(BuildError::Images)?.digest;
    for tag in &request.tags {
        images.tag(tag, &digest).map_err(BuildError::Images)?;
    }
    Ok(Built {
        digest,
        reference: request.tags.first().cloned(),
        steps_run: solved.run,
        steps_cached: solved.cached,
    })
}

/// What a stage started from, and then its own steps.
fn history(
    stage: &PlannedStage,
    graph: &Graph,
    bases: &Bases,
    solved: &Solved,
    created: &str,
) -> Vec<History> {
    let mut history = match &stage.origin {
        Origin::Stage(index) => {
            let earlier = graph.stages.iter().find(|stage| stage.index == *index);
            earlier.map(|stage| history(stage, graph, bases, solved, created))
        }
        origin => bases.get(origin).map(|base| base.image.config.history.clone()),
    }
    .unwrap_or_default();
    let made = solved.stages.get(&stage.index).map(|stage| &stage.made_layer[..]).unwrap_or(&[]);
    history.extend(stage.steps.iter().zip(made).map(|(step, made_layer)| History {
        created: Some(created.to_owned()),
        created_by: Some(step.created_by.clone()),
        empty_layer: !made_layer,
        ..History::default()
    }));
    history
}

fn timestamp(epoch: i64) -> String {
    jiff::Timestamp::from_second(epoch).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
