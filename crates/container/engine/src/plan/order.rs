//! In which order services start.

use std::collections::BTreeSet;

use carrack_objects::compose::Application;

use super::PlanProblem;

/// The services concerned, each after those it depends on; otherwise as in the file.
///
/// `chosen` are the services asked for, whose dependencies come along; all when empty.
///
/// # Errors
///
/// Names that are not in the file, and circles.
pub fn order(
    application: &Application,
    chosen: &[String],
) -> Result<Vec<String>, Vec<PlanProblem>> {
    let mut walk = Walk {
        application,
        done: BTreeSet::new(),
        path: Vec::new(),
        order: Vec::new(),
        problems: Vec::new(),
    };
    if chosen.is_empty() {
        for name in application.services.keys() {
            walk.visit(name);
        }
    }
    for name in chosen {
        if application.services.contains_key(name) {
            walk.visit(name);
        } else {
            walk.problems.push(PlanProblem::NoSuchService(name.clone()));
        }
    }
    if walk.problems.is_empty() { Ok(walk.order) } else { Err(walk.problems) }
}

struct Walk<'a> {
    application: &'a Application,
    done: BTreeSet<&'a str>,
    path: Vec<&'a str>,
    order: Vec<String>,
    problems: Vec<PlanProblem>,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, name: &str) {
        let Some((name, service)) = self.application.services.get_key_value(name) else { return };
        if let Some(start) = self.path.iter().position(|other| other == name) {
            let mut circle: Vec<String> =
                self.path.iter().skip(start).map(|name| (*name).to_owned()).collect();
            circle.push(name.clone());
            self.problems.push(PlanProblem::Circle(circle));
            return;
        }
        if !self.done.insert(name) {
            return;
        }
        self.path.push(name);
        for (other, dependency) in &service.depends_on {
            if self.application.services.contains_key(other) {
                self.visit(other);
            } else if dependency.required {
                self.problems.push(PlanProblem::NoSuchDependency {
                    service: name.clone(),
                    other: other.clone(),
                });
            }
        }
        self.path.pop();
        self.order.push(name.clone());
    }
}
