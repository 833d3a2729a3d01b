//! The files that policy comes from, and the last good version of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use agent_policy::{
    diagnostic::Diagnostic,
    load::{ParsedFile, assemble_again, assemble_changed},
    model::{Failsafe, World},
};

use crate::source::{files, watch::Places};

/// What is read, and what was good of it.
#[derive(Debug)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    /// Of the settings: part of every world.
    failsafe: Vec<Failsafe>,
    /// No file among them has an error.
    good: Vec<Arc<ParsedFile>>,
    /// What was read last, good or not, by the path of its file.
    read: BTreeMap<PathBuf, Arc<ParsedFile>>,
    world: Arc<World>,
    /// Of the last reading.
    errors: Vec<String>,
    seen: Vec<Sight>,
}

/// A file or folder as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sight {
    path: PathBuf,
    /// Device, inode, size and times of change; absent if it could not be seen.
    state: Option<(u64, u64, u64, [i64; 4])>,
    is_folder: bool,
}

/// The outcome of reading once more.
#[derive(Debug)]
pub(crate) struct Reload {
    pub(crate) world: Arc<World>,
    /// Errors of files, or between them. The last good version of those files is in force.
    pub(crate) errors: Vec<String>,
}

/// Input that nothing can be enforced from.
#[derive(Debug, thiserror::Error)]
#[error("the input has errors, and nothing has been changed:\n{}", .0.join("\n"))]
pub(crate) struct InputError(Vec<String>);

impl Files {
    /// Reads everything for the first time.
    ///
    /// # Errors
    ///
    /// If anything is wrong: there is no good version to keep.
    pub(super) fn read(paths: Vec<PathBuf>, failsafe: Vec<Failsafe>) -> Result<Self, InputError> {
        let seen = look(&paths);
        let parsed = files::parse_again(&paths, |_| None);
        let read = by_path(&parsed);
        let good: Vec<_> = parsed.into_iter().map(|parsed| parsed.file).collect();
        let mut errors = report(&good);
        let (world, between) = assemble(&good, &failsafe);
        errors.extend(between.iter().filter_map(error));
        if !errors.is_empty() {
            return Err(InputError(errors));
        }
        Ok(Self {
            paths,
            failsafe,
            good,
            read,
            world: Arc::new(world),
            errors: Vec::new(),
            seen,
        })
    }

    /// What was wrong when it was last read; the last good version of it is in the world.
    pub(super) fn errors(&self) -> &[String] {
        &self.errors
    }

    /// Where files may come, go and change: folders that were seen, and files that are named themselves.
    pub(super) fn places(&self) -> Places {
        let seen = self.seen.iter().filter_map(|sight| {
            let (device, inode, ..) = sight.state?;
            let is_place = sight.is_folder || self.paths.contains(&sight.path);
            is_place.then(|| (sight.path.clone(), (device, inode)))
        });
        seen.collect()
    }

    /// Each file and folder that was looked at, and whether it is a folder.
    pub(super) fn seen(&self) -> impl Iterator<Item = (&Path, bool)> {
        let seen = self.seen.iter();
        seen.map(|sight| (sight.path.as_path(), sight.is_folder))
    }

    pub(super) fn world(&self) -> Arc<World> {
        Arc::clone(&self.world)
    }

    /// Reads again if a file has changed.
    pub(super) fn reload(&mut self) -> Option<Reload> {
        let seen = look(&self.paths);
        if seen == self.seen {
            return None;
        }
        let before = std::mem::replace(&mut self.seen, seen);
        // Standard input was read to its end.
        let paths: Vec<PathBuf> = self
            .paths
            .iter()
            .filter(|path| path.as_os_str() != "-")
            .cloned()
            .collect();
        let before: BTreeMap<&Path, &Sight> = before
            .iter()
            .map(|sight| (sight.path.as_path(), sight))
            .collect();
        let unchanged: BTreeSet<&Path> = self
            .seen
            .iter()
            .filter(|now| before.get(now.path.as_path()) == Some(now))
            .map(|now| now.path.as_path())
            .collect();
        // Most often one file of many has changed, and reading is most of what a change takes.
        let parsed = files::parse_again(&paths, |path| {
            let file = unchanged.contains(path).then(|| self.read.get(path));
            file.flatten().cloned()
        });
        self.read = by_path(&parsed);
        let parsed: Vec<_> = parsed.into_iter().map(|parsed| parsed.file).collect();
        let mut errors = report(&parsed);
        let merged = self.merge(parsed);
        let (world, between) = self.assemble(&merged);
        let conflicts: Vec<String> = between.iter().filter_map(error).collect();
        if conflicts.is_empty() {
            self.good = merged;
            self.world = Arc::new(world);
        }
        errors.extend(conflicts);
        for error in &errors {
            tracing::error!("{error}");
        }
        self.errors.clone_from(&errors);
        Some(Reload {
            world: self.world(),
            errors,
        })
    }

    /// The world of these files, and what is wrong between them.
    fn assemble(&self, files: &[Arc<ParsedFile>]) -> (World, Vec<Diagnostic>) {
        let removed = not_among(&self.good, files);
        let added = not_among(files, &self.good);
        match assemble_changed(&self.world, removed, added) {
            Some(world) => (world, Vec::new()),
            None => assemble(files, &self.failsafe),
        }
    }

    /// The new files, with the last good version of those that have errors or cannot be reached.
    fn merge(&self, parsed: Vec<Arc<ParsedFile>>) -> Vec<Arc<ParsedFile>> {
        let (good, bad): (Vec<_>, Vec<_>) = parsed.into_iter().partition(|file| !file.has_errors());
        let kept = self.good.iter().filter(|old| {
            &*old.name == files::STDIN || bad.iter().any(|bad| is_at_or_below(&old.name, &bad.name))
        });
        kept.cloned().chain(good).collect()
    }
}

/// Those of `files` that `others` do not have.
fn not_among<'f>(
    files: &'f [Arc<ParsedFile>],
    others: &[Arc<ParsedFile>],
) -> impl Iterator<Item = &'f ParsedFile> {
    let others: BTreeSet<_> = others.iter().map(Arc::as_ptr).collect();
    let files = files.iter();
    files
        .filter(move |file| !others.contains(&Arc::as_ptr(file)))
        .map(Arc::as_ref)
}

fn by_path(parsed: &[files::Parsed]) -> BTreeMap<PathBuf, Arc<ParsedFile>> {
    let files = parsed.iter();
    files
        .filter_map(|parsed| Some((parsed.path.clone()?, Arc::clone(&parsed.file))))
        .collect()
}

fn assemble(files: &[Arc<ParsedFile>], failsafe: &[Failsafe]) -> (World, Vec<Diagnostic>) {
    assemble_again(files.iter().map(Arc::as_ref), failsafe.to_vec())
}

/// A folder that is gone keeps all that was in it.
fn is_at_or_below(name: &str, place: &str) -> bool {
    Path::new(name).starts_with(place)
}

fn report(files: &[Arc<ParsedFile>]) -> Vec<String> {
    files
        .iter()
        .flat_map(|file| &file.diagnostics)
        .filter_map(error)
        .collect()
}

fn error(diagnostic: &Diagnostic) -> Option<String> {
    diagnostic.is_error().then(|| diagnostic.to_string())
}

/// How every file and folder looks now, without reading any.
fn look(paths: &[PathBuf]) -> Vec<Sight> {
    let mut seen = Vec::new();
    for path in paths.iter().filter(|path| path.as_os_str() != "-") {
        look_at(path, 0, &mut seen);
    }
    seen
}

fn look_at(path: &Path, depth: usize, seen: &mut Vec<Sight>) {
    let metadata = fs::metadata(path).ok();
    let is_folder = metadata.as_ref().is_some_and(fs::Metadata::is_dir);
    seen.push(Sight {
        path: path.to_owned(),
        is_folder,
        state: metadata.as_ref().map(|file| {
            let times = [
                file.mtime(),
                file.mtime_nsec(),
                file.ctime(),
                file.ctime_nsec(),
            ];
            (file.dev(), file.ino(), file.size(), times)
        }),
    });
    if !is_folder || depth > files::MAX_FOLDERS {
        return;
    }
    let Ok(entries) = fs::read_dir(path) else {
        return;
    };
    let mut names: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    names.sort();
    for name in names {
        look_at(&name, depth + 1, seen);
    }
}

#[cfg(test)]
mod tests {
    use agent_policy::load::parse_file;

    use super::*;

    const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: \
        {name: NAME, namespace: shop}\nspec: {podSelector: {}}\n";

    fn write(folder: &Path, file: &str, name: &str) {
        fs::write(folder.join(file), POLICY.replace("NAME", name)).unwrap();
    }

    fn names(world: &World) -> Vec<&str> {
        world
            .network_policies
            .keys()
            .map(|name| name.name.as_str())
            .collect()
    }

    #[test]
    fn a_file_with_errors_keeps_its_last_good_version_and_holds_up_no_other() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.yaml", "one");
        write(folder.path(), "b.yaml", "two");
        let mut inputs = Files::read(vec![folder.path().to_owned()], Vec::new()).unwrap();
        assert_eq!(names(&inputs.world()), ["one", "two"]);
        assert!(inputs.reload().is_none());

        fs::write(folder.path().join("a.yaml"), "kind: [").unwrap();
        write(folder.path(), "b.yaml", "three");
        let reload = inputs.reload().unwrap();
        assert_eq!(names(&reload.world), ["one", "three"]);
        assert!(reload.errors[0].contains("a.yaml"), "{:?}", reload.errors);

        fs::remove_file(folder.path().join("a.yaml")).unwrap();
        let reload = inputs.reload().unwrap();
        assert_eq!(names(&reload.world), ["three"]);
        assert!(reload.errors.is_empty());
    }

    #[test]
    fn what_has_not_changed_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.yaml", "one");
        write(folder.path(), "b.yaml", "two");
        let mut inputs = Files::read(vec![folder.path().to_owned()], Vec::new()).unwrap();
        let before = inputs.world();
        write(folder.path(), "b.yaml", "three");
        let after = inputs.reload().unwrap().world;
        assert_eq!(names(&after), ["one", "three"]);
        let one = |world: &World| Arc::clone(world.network_policies.values().next().unwrap());
        assert!(Arc::ptr_eq(&one(&before), &one(&after)));
        // One that had an error when it was read last has it still.
        fs::write(folder.path().join("a.yaml"), "kind: [").unwrap();
        assert_eq!(inputs.reload().unwrap().errors.len(), 1);
        write(folder.path(), "b.yaml", "four");
        let reload = inputs.reload().unwrap();
        assert_eq!(names(&reload.world), ["four", "one"]);
        assert_eq!(reload.errors.len(), 1);
    }

    #[test]
    fn what_came_by_standard_input_stays_when_a_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "b.yaml", "two");
        let mut inputs = Files::read(vec![folder.path().to_owned()], Vec::new()).unwrap();
        let piped = parse_file(
            files::STDIN.into(),
            POLICY.replace("NAME", "one").as_bytes(),
        );
        inputs.good.push(Arc::new(piped));
        inputs.world = Arc::new(assemble(&inputs.good, &[]).0);
        write(folder.path(), "b.yaml", "three");
        assert_eq!(names(&inputs.reload().unwrap().world), ["one", "three"]);
    }

    #[test]
    fn a_folder_that_is_gone_keeps_what_it_held() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("policies");
        fs::create_dir(&folder).unwrap();
        write(&folder, "a.yaml", "one");
        let mut inputs = Files::read(vec![folder.clone()], Vec::new()).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let reload = inputs.reload().unwrap();
        assert_eq!(names(&reload.world), ["one"]);
        assert_eq!(reload.errors.len(), 1);
    }

    #[test]
    fn two_files_that_contradict_each_other_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.yaml", "one");
        let mut inputs = Files::read(vec![folder.path().to_owned()], Vec::new()).unwrap();
        write(folder.path(), "b.yaml", "one");
        let reload = inputs.reload().unwrap();
        assert_eq!(names(&reload.world), ["one"]);
        assert!(!reload.errors.is_empty());
    }

    #[test]
    fn nothing_good_to_begin_with_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), "kind: [").unwrap();
        Files::read(vec![folder.path().to_owned()], Vec::new()).unwrap_err();
    }
}
