//! Opens what a task does around its networks, as their configurations say.

use super::answer::{Answer, Opening};
use super::group::{Around, Group, Part, Refiner, Rough};
use super::options::{LabelsBack, Postprocessing};
use crate::model::{Label, ModelConfig, TaskGrid};
use crate::pipeline::postprocess::Recipe;
use crate::registry::Model;
use crate::{Error, Mismatch, Result};

/// Models that find parts of images for each other: a crop by a model that crops by a third one.
const MOST_DEPTH: usize = 3;

impl Opening<'_> {
    /// Joins consecutive parts that have the same things done around them. `seen` are the
    /// structures of all of them, `asked` those that the user named, none for all.
    pub(super) fn groups(
        &self,
        parts: Vec<Part>,
        seen: &[Label],
        asked: &[String],
    ) -> Result<Vec<Group>> {
        let mut groups: Vec<Group> = Vec::new();
        for part in parts {
            let joins = |group: &Group| {
                let (a, b) = (group.parts[0].network.config(), part.network.config());
                a.grid == b.grid
                    && a.rough_crop == b.rough_crop
                    && a.refine == b.refine
                    && (a.grid.is_none() || a.postprocessing == b.postprocessing)
            };
            if let Some(group) = groups.last_mut().filter(|group| joins(group)) {
                group.parts.push(part);
            } else {
                let around = self.around(part.network.config(), seen, asked)?;
                groups.push(Group { parts: vec![part], around });
            }
        }
        Ok(groups)
    }

    /// What is done around a network.
    fn around(
        &self,
        config: &ModelConfig,
        seen: &[Label],
        asked: &[String],
    ) -> Result<Option<Around>> {
        let Some(grid) = &config.grid else { return Ok(None) };
        if self.options.keep_probabilities {
            let expected = "a model that runs on the image's own grid";
            return Err(Error::usage("probabilities", "a model on the grid of a task", expected));
        }
        let recipe = match &self.options.postprocessing {
            Postprocessing::Own => config.postprocessing.as_deref().map(|name| self.named(name)),
            Postprocessing::None | Postprocessing::Recipe(_) => None,
        };
        let recipe: Recipe = recipe.transpose()?.unwrap_or_default();
        recipe.check(seen)?;
        let grid = match self.options.labels {
            LabelsBack::Own => grid.clone(),
            // On the image's own grid, networks come to theirs and back as nnU-Net does it.
            LabelsBack::Smooth => TaskGrid { spacing: None, ..grid.clone() },
        };
        Ok(Some(Around {
            grid,
            rough: self.rough(config, asked)?,
            refine: self.refiner(config)?,
            recipe,
            seen: seen.to_vec(),
        }))
    }

    /// What finds the part of the image that matters; none if all of it does.
    fn rough(&self, config: &ModelConfig, asked: &[String]) -> Result<Option<Rough>> {
        let Some(crop) = &config.rough_crop else { return Ok(None) };
        let by_choice = crop.structures.is_empty();
        let structures = if by_choice { asked } else { &crop.structures[..] };
        if structures.is_empty() {
            return Ok(None);
        }
        let mut installed = crop.models.iter().filter_map(|name| self.registry.find(name));
        // From coarse to fine.
        let found = if self.options.robust_crop { installed.next_back() } else { installed.next() };
        let Some(model) = found else {
            // Without it the whole image is segmented, which takes longer and finds the same.
            if by_choice {
                return Ok(None);
            }
            let what = Mismatch::new(
                format!("no {} for the rough crop", crop.models.join(" nor ")),
                "one of them among the models",
            );
            return Err(Error::model(config.model_path.as_deref().unwrap_or("network"), what));
        };
        let answer = self.helper(model)?;
        let ids = |names: &[String]| -> Result<Vec<u16>> {
            names.iter().map(|name| id_of(&answer, name)).collect()
        };
        let keep_within = crop.keep_within.as_ref();
        let keep_within = keep_within
            .map(|within| Ok::<_, Error>((ids(&within.structures)?, within.distance_mm)));
        Ok(Some(Rough {
            ids: ids(structures)?,
            margin_mm: crop.margin_mm,
            keep_within: keep_within.transpose()?,
            answer: Box::new(answer),
        }))
    }

    fn refiner(&self, config: &ModelConfig) -> Result<Option<Refiner>> {
        let Some(refine) = &config.refine else { return Ok(None) };
        let model = self.registry.find(&refine.model).ok_or_else(|| {
            let what = Mismatch::new(
                format!("no {}, which draws the border of its labels", refine.model),
                "it among the models",
            );
            Error::model(config.model_path.as_deref().unwrap_or("network"), what)
        })?;
        let answer = self.helper(model)?;
        let id = id_of(&answer, &refine.structure)?;
        Ok(Some(Refiner { answer: Box::new(answer), id, grow_mm: refine.grow_mm }))
    }

    /// A model that others need, as its own configuration has it.
    fn helper(&self, model: &Model) -> Result<Answer> {
        if self.depth >= MOST_DEPTH {
            let what = Mismatch::new(
                "models that need each other",
                format!("at most {MOST_DEPTH} in a row"),
            );
            return Err(Error::model(&*model.name, what));
        }
        let mut options = self.options.clone();
        options.postprocessing = Postprocessing::Own;
        // What is cut out is the same however labels come back.
        options.labels = LabelsBack::Own;
        let Self { engine, registry, depth, .. } = *self;
        let opening = Opening { options: &options, engine, registry, depth: depth + 1 };
        opening.whole_model(model)
    }
}

fn id_of(answer: &Answer, name: &str) -> Result<u16> {
    let found = answer.labels.iter().find(|label| label.name == *name);
    found.map(|label| label.id).ok_or_else(|| {
        let what = Mismatch::new(
            format!("no structure {name}"),
            "it, as another model is cut to where it is",
        );
        Error::model(answer.about.name.as_str(), what)
    })
}
