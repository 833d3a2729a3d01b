//! Numbers of endpoints. Flows, counters and attachments in the kernel are known by them, so a
//! restarted agent must give every endpoint the number it had.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use agent_policy::{model::SubjectName, plan::Programmed};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::daemon::file;

/// Endpoint numbers by subject, kept in the state folder.
#[derive(Debug)]
pub(crate) struct Registry {
    path: PathBuf,
    kept: Kept,
    /// Numbers that the kernel has words for, though nobody here knows whose they are.
    foreign: Vec<u16>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// See [`key`] → number.
    endpoints: BTreeMap<String, u16>,
    /// The number given last. Counting on delays the day that a number is used again, until when
    /// flows of its last owner are forgotten.
    last: u16,
}

/// Numbers for a set of endpoints, not yet kept.
#[derive(Debug)]
pub(crate) struct Assignment {
    endpoints: BTreeMap<u16, SubjectName>,
    next: Kept,
}

impl Assignment {
    pub(crate) fn endpoints(&self) -> &BTreeMap<u16, SubjectName> {
        &self.endpoints
    }
}

/// More endpoints than numbers, or than the tables have room for.
#[derive(Debug, thiserror::Error)]
#[error("no number is left for endpoint {name}: the tables have room for {capacity} endpoints")]
pub(crate) struct NoNumber {
    name: String,
    capacity: usize,
}

impl Registry {
    /// Reads the numbers of an earlier agent.
    ///
    /// A file that cannot be understood is as good as none, and is overwritten with the new numbers.
    pub(crate) fn open(state_dir: &Path, programmed: &Programmed) -> anyhow::Result<Self> {
        let path = state_dir.join("endpoints.json");
        let kept: Kept = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "endpoint numbers are lost");
                Kept::default()
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept::default(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let foreign = programmed
            .words
            .keys()
            .copied()
            .filter(|id| !kept.endpoints.values().any(|known| known == id))
            .collect();
        Ok(Self {
            path,
            kept,
            foreign,
        })
    }

    /// A number for each of `names`, and for nobody else. Nothing changes before [`Registry::keep`].
    ///
    /// # Errors
    ///
    /// If there are too many.
    pub(crate) fn assign<'n>(
        &self,
        names: impl Iterator<Item = &'n SubjectName>,
        capacity: usize,
    ) -> Result<Assignment, NoNumber> {
        let mut next = Kept {
            endpoints: BTreeMap::new(),
            last: self.kept.last,
        };
        let mut assigned = BTreeMap::new();
        let mut new = Vec::new();
        for name in names {
            match self.kept.endpoints.get(&key(name)) {
                Some(&id) => {
                    next.endpoints.insert(key(name), id);
                    assigned.insert(id, name.clone());
                }
                None => new.push(name),
            }
        }
        for name in new {
            let id = self
                .free(&assigned, &mut next.last, capacity)
                .ok_or_else(|| NoNumber {
                    name: name.to_string(),
                    capacity: capacity - 1,
                })?;
            next.endpoints.insert(key(name), id);
            assigned.insert(id, name.clone());
        }
        Ok(Assignment {
            endpoints: assigned,
            next,
        })
    }

    /// Keeps an assignment, for the next agent too. Comes before anything is attached by it.
    ///
    /// # Errors
    ///
    /// If the file cannot be written; the numbers are then as before.
    pub(crate) fn keep(&mut self, assignment: Assignment) -> anyhow::Result<()> {
        let Assignment { endpoints: _, next } = assignment;
        if next.endpoints != self.kept.endpoints {
            serde_json::to_vec_pretty(&next)
                .map_err(Into::into)
                .and_then(|text| file::replace(&self.path, &text))
                .with_context(|| format!("cannot write {}", self.path.display()))?;
            self.kept = next;
        }
        Ok(())
    }

    fn free(
        &self,
        assigned: &BTreeMap<u16, SubjectName>,
        last: &mut u16,
        capacity: usize,
    ) -> Option<u16> {
        // Numbers that end with this change are not free yet: the kernel still has their words.
        let taken = |id: &u16| {
            assigned.contains_key(id)
                || self.foreign.contains(id)
                || self.kept.endpoints.values().any(|kept| kept == id)
        };
        let highest = u16::try_from(capacity.saturating_sub(1)).unwrap_or(u16::MAX);
        let after = (last.saturating_add(1)..=highest).chain(1..=*last);
        let id = after.into_iter().find(|id| *id <= highest && !taken(id))?;
        *last = id;
        Some(id)
    }
}

/// `NAMESPACE/NAME` of a workload. A node is not `node/NAME`, which a workload of a namespace of
/// that name would be: without a slash it is no workload's.
fn key(name: &SubjectName) -> String {
    match name {
        SubjectName::Workload(name) => name.to_string(),
        SubjectName::Node(name) => format!("node:{name}"),
    }
}

#[cfg(test)]
mod tests {
    use agent_policy::model::ObjectName;

    use super::*;

    fn names(names: &[&str]) -> Vec<SubjectName> {
        names
            .iter()
            .map(|name| ObjectName::new("shop", *name).into())
            .collect()
    }

    /// Assigns and keeps.
    fn give(registry: &mut Registry, to: &[&str]) -> BTreeMap<u16, SubjectName> {
        let assignment = registry.assign(names(to).iter(), 16).unwrap();
        let endpoints = assignment.endpoints().clone();
        registry.keep(assignment).unwrap();
        endpoints
    }

    fn open(folder: &Path) -> Registry {
        Registry::open(folder, &Programmed::default()).unwrap()
    }

    #[test]
    fn an_endpoint_keeps_its_number_across_agents() {
        let folder = tempfile::tempdir().unwrap();
        let first = give(&mut open(folder.path()), &["b", "a"]);
        let second = give(&mut open(folder.path()), &["0", "a", "b"]);
        for (id, name) in first {
            assert_eq!(second[&id], name);
        }
    }

    #[test]
    fn a_number_is_not_used_again_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut registry = open(folder.path());
        let first = give(&mut registry, &["a"]);
        let second = give(&mut registry, &["b"]);
        let third = give(&mut registry, &["c"]);
        let ids: Vec<_> = [first, second, third]
            .iter()
            .flat_map(|map| map.keys().copied())
            .collect();
        assert_eq!(ids, [1, 2, 3]);
    }

    #[test]
    fn too_many_endpoints_are_refused_and_nothing_changes() {
        let folder = tempfile::tempdir().unwrap();
        let mut registry = open(folder.path());
        give(&mut registry, &["a"]);
        let error = registry
            .assign(names(&["a", "b", "c"]).iter(), 3)
            .unwrap_err();
        assert!(
            error.to_string().contains("room for 2 endpoints"),
            "{error}"
        );
        assert_eq!(registry.kept.endpoints.len(), 1);
    }

    #[test]
    fn a_node_is_not_a_workload_in_a_namespace_of_that_name() {
        let folder = tempfile::tempdir().unwrap();
        let both = [
            SubjectName::Node("one".to_owned()),
            ObjectName::new("node", "one").into(),
        ];
        let mut registry = open(folder.path());
        let first = registry.assign(both.iter(), 16).unwrap();
        let given = first.endpoints().clone();
        assert_eq!(given.len(), 2);
        registry.keep(first).unwrap();
        let again = open(folder.path()).assign(both.iter().rev(), 16).unwrap();
        assert_eq!(*again.endpoints(), given);
    }

    #[test]
    fn a_broken_file_is_survived() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("endpoints.json"), "{").unwrap();
        assert_eq!(give(&mut open(folder.path()), &["a"]).len(), 1);
    }
}
