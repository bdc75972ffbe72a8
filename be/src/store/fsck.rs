//! `fsck`: whether everything that the store keeps is what was written, and what can be done if not.
//!
//! Snapshots and journal are the truth and are read whole. What they hold is compared with the index,
//! key by key, and each body that it names is looked for; each body is compared with the hash behind it.
//! With `repair`, what can be made anew is: the index out of the truth, or, where the truth is damaged
//! and the index is whole, a snapshot out of the index. Needs the store closed; may be interrupted at
//! any moment, and run again.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    BodyId, Key, Progress, Range, StoreError, StoreOptions, Value, Watch,
    disk::RealDisk,
    files::FileBodies,
    journal::{self, Check},
    merge::{Merge, Parts},
    place::Place,
    snapshot::{self, SnapshotReader, SnapshotWriter},
    tree::Tree,
    upkeep,
};

/// Findings that are told one by one; more are only counted.
const FINDINGS_MAX: usize = 200;
/// Entries of the index read at a time.
const PAGE: usize = 512;

/// What the model above knows of bodies.
pub trait References {
    /// The body that an entry of the index names as used, if it does.
    fn body(&self, key: &[u8], value: &[u8]) -> Option<BodyId>;
    /// Where the uses of a body lie in the index; an empty range: nobody uses it.
    fn uses(&self, body: BodyId) -> Range;
}

/// How bad something is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// What a crash leaves, and the next start or a collection clears.
    Note,
    /// Damage that costs nothing but time: it can be repaired, or was.
    Damage,
    /// Something is gone. Only a backup has it.
    Loss,
}

/// Something that was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What and where it is.
    pub what: String,
}

/// What `fsck` found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The first of what was found.
    pub findings: Vec<Finding>,
    /// How much was found of each severity.
    pub notes: u64,
    /// See [`Severity::Damage`].
    pub damages: u64,
    /// See [`Severity::Loss`].
    pub losses: u64,
    /// What was done about it.
    pub repairs: Vec<String>,
    /// Keys in the index, as snapshots and journal have them.
    pub entries: u64,
    /// Keys and values, in bytes.
    pub live_bytes: u64,
    /// Records of the journal.
    pub records: u64,
    /// Bodies, their length in bytes, and those without a hash, from before there were any.
    pub bodies: u64,
    /// See `bodies`.
    pub body_bytes: u64,
    /// See `bodies`.
    pub bodies_unhashed: u64,
    /// Bodies that nothing uses.
    pub unreferenced: u64,
}

impl Report {
    fn find(&mut self, severity: Severity, what: impl Into<String>) {
        match severity {
            Severity::Note => self.notes += 1,
            Severity::Damage => self.damages += 1,
            Severity::Loss => self.losses += 1,
        }
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { severity, what: what.into() });
        }
    }

    /// Whether nothing was found but what a crash leaves.
    pub fn is_clean(&self) -> bool {
        self.damages == 0 && self.losses == 0
    }
}

/// Checks the closed store in `dir`. Blocks, for as long as reading all of it takes.
///
/// # Errors
/// `InUse` while a server runs; `NewerFormat`; `Io` when the disk fails. Damage is no error: see the report.
pub fn fsck(
    dir: &Path,
    options: &StoreOptions,
    references: &dyn References,
    repair: bool,
    watch: Watch<'_>,
) -> Result<Report, StoreError> {
    let place = Arc::new(existing(dir)?);
    let mut check = Checker {
        place,
        options,
        references,
        report: Report::default(),
        watch,
        newest: None,
        damaged_before: false,
    };
    let truth = check.truth()?;
    let index = check.index(truth.as_ref())?;
    if repair {
        check.repair(truth.as_ref(), index.as_ref())?;
    }
    let whole = truth.is_some_and(|truth| index.as_ref().is_some_and(|(_, made)| *made == truth.through));
    check.bodies(repair, index.as_ref().filter(|_| whole).map(|(tree, _)| tree))?;
    drop(index);
    check.place.remove_copy()?;
    Ok(check.report)
}

/// Enters a store that is there: a mistyped path must not become a new one.
pub(crate) fn existing(dir: &Path) -> Result<Place, StoreError> {
    if !dir.join("format").exists() && !dir.join("journal").exists() && !dir.join("restoring").exists() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(StoreError::io(format!("find a store in {}", dir.display()), missing));
    }
    Place::enter(dir, Arc::new(RealDisk))
}

/// What snapshots and journal are worth.
struct Truth {
    base: Option<(u64, PathBuf)>,
    /// The last position that base and journal hold.
    through: u64,
}

struct Checker<'a> {
    place: Arc<Place>,
    options: &'a StoreOptions,
    references: &'a dyn References,
    report: Report,
    watch: Watch<'a>,
    /// The newest snapshot that can be read, with its position.
    newest: Option<(u64, PathBuf)>,
    /// The journal is damaged, but only before the newest snapshot.
    damaged_before: bool,
}

impl Checker<'_> {
    /// Reads snapshots and journal. None: they do not make up a state.
    fn truth(&mut self) -> Result<Option<Truth>, StoreError> {
        let mut good = Vec::new();
        for (through, path) in snapshot::list(&self.place.snapshots())? {
            let total = fs::metadata(&path).map_or(0, |found| found.len());
            let (mut done, watch) = (0, &mut *self.watch);
            let verified = SnapshotReader::open(&path).and_then(|reader| {
                reader.verify(|bytes| {
                    done += bytes;
                    watch(Progress { phase: "snapshots", done, total });
                    Ok(())
                })
            });
            match verified {
                Ok(_) => good.push((through, path)),
                Err(damage) if damage.is_damage() => {
                    self.report.find(Severity::Damage, damage.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        self.newest = good.last().cloned();
        let watch = &mut *self.watch;
        let mut found = journal::check(&self.place.journal(), 0, |done| {
            if done % 1000 == 0 {
                watch(Progress { phase: "journal", done, total: 0 });
            }
        })?;
        if let (Some(damage), Some((through, _))) = (&found.damage, &self.newest) {
            let behind = journal::check(&self.place.journal(), *through, |_| ())?;
            if behind.damage.is_none() && behind.first <= through.saturating_add(1) && behind.last >= *through
            {
                let what = format!("{damage}; a newer snapshot has what was there");
                self.report.find(Severity::Damage, what);
                self.damaged_before = true;
                found = Check { records: found.records.max(behind.records), ..behind };
            }
        }
        let Check { first, last, torn, damage, records } = found;
        self.report.records = records;
        if let Some(bytes) = torn {
            self.report
                .find(Severity::Note, format!("the journal ends in {bytes} bytes of an unfinished commit"));
        }
        let sound = damage.is_none();
        if let Some(damage) = damage {
            self.report.find(Severity::Damage, damage.to_string());
        }
        let base = good.pop().filter(|(through, _)| sound && first <= through + 1 && *through <= last);
        match base {
            Some(base) => Ok(Some(Truth { base: Some(base), through: last })),
            None if sound && first == 1 => Ok(Some(Truth { base: None, through: last })),
            None => {
                let what = "snapshots and journal do not make up a whole state";
                self.report.find(Severity::Damage, what);
                Ok(None)
            }
        }
    }

    fn merge(&mut self, truth: &Truth, through: u64) -> Result<Merge, StoreError> {
        let scratch = self.place.snapshots();
        super::disk::make_dir(&*self.place.disk, &scratch)?;
        let parts = Parts {
            base: truth.base.as_ref().map(|(at, path)| (*at, path.as_path())),
            journal: &self.place.journal(),
            through,
            scratch: &scratch,
            memory_bytes: self.options.snapshot_memory_bytes,
            disk: Arc::clone(&self.place.disk),
        };
        Merge::begin(parts, |_| Ok(()))
    }

    /// Compares the index with the truth. Answers it with its position when it can be read whole and
    /// holds nothing but the truth, as far as there is one. Where there is none, and no index, the
    /// best of those that were set aside. sled writes whenever it opens its files: it gets a copy of them.
    fn index(&mut self, truth: Option<&Truth>) -> Result<Option<(Tree, u64)>, StoreError> {
        if let Some(truth) = truth {
            self.references_of(truth)?;
        }
        let found = self.index_in_use(truth)?;
        if found.is_some() || truth.is_some() {
            return Ok(found);
        }
        let mut best: Option<(u64, PathBuf)> = None;
        for path in self.place.indexes_aside() {
            if let Ok((tree, made)) = self.open_copy(&path)?
                && best.as_ref().is_none_or(|(found, _)| made > *found)
                && self.compare(&tree, None).is_ok()
            {
                best = Some((made, path));
            }
        }
        let Some((made, path)) = best else { return Ok(None) };
        let what = format!("all that can be read is {}, which has seen {made} commits", path.display());
        self.report.find(Severity::Damage, what);
        Ok(self.open_copy(&path)?.ok())
    }

    /// Opens a copy of an index; the inner failure is sled's, or of the snapshot below.
    fn open_copy(&mut self, index: &Path) -> Result<Result<(Tree, u64), sled::Error>, StoreError> {
        let copy = self.place.copy_of_index(index)?;
        let opened = Tree::open(&copy, &self.place.snapshots(), self.options.cache_bytes);
        Ok(opened.and_then(|tree| tree.position().map(|made| (tree, made))))
    }

    fn index_in_use(&mut self, truth: Option<&Truth>) -> Result<Option<(Tree, u64)>, StoreError> {
        if self.place.machine_went_down()? {
            self.report.find(
                Severity::Note,
                "the machine went down with the store open: the next start makes the index anew",
            );
            return Ok(None);
        }
        if !self.place.index().exists() {
            self.report.find(Severity::Note, "there is no index: the next start makes it");
            return Ok(None);
        }
        let (tree, made) = match self.open_copy(&self.place.index())? {
            Ok(opened) => opened,
            Err(failure) => {
                self.report.find(Severity::Damage, format!("the index cannot be opened: {failure}"));
                return Ok(None);
            }
        };
        if made == 0 && self.newest.is_some() {
            // sled takes some damage for a file that was never written.
            self.report.find(Severity::Damage, "the index is empty: it was damaged, or made by half");
            return Ok(None);
        }
        let compared = match truth {
            Some(truth) if made > truth.through => {
                let what = format!("the journal ends at {}, but the index has seen {made}", truth.through);
                self.report.find(Severity::Damage, what);
                self.compare(&tree, None)
            }
            Some(truth) if made < truth.base.as_ref().map_or(0, |(at, _)| *at) => {
                self.report.find(
                    Severity::Note,
                    "the index is older than the snapshot: the next start makes it anew",
                );
                return Ok(None);
            }
            Some(truth) => {
                let merge = self.merge(truth, made)?;
                self.compare(&tree, Some(merge))
            }
            // It can at least be read.
            None => self.compare(&tree, None),
        };
        match compared {
            Ok(0) => Ok(Some((tree, made))),
            Ok(differences) => {
                self.report.find(
                    Severity::Damage,
                    format!("the index differs from the journal in {differences} keys"),
                );
                Ok(None)
            }
            Err(StoreError::Io { doing, source }) => {
                self.report.find(Severity::Damage, format!("{doing}: {source}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Looks for each body that the truth names.
    fn references_of(&mut self, truth: &Truth) -> Result<(), StoreError> {
        let mut merge = self.merge(truth, truth.through)?;
        let dir = self.place.bodies();
        let mut last = None;
        while let Some((key, value)) = merge.next()? {
            self.report.entries += 1;
            self.report.live_bytes += (key.len() + value.len()) as u64;
            if self.report.entries.is_multiple_of(10_000) {
                (self.watch)(Progress { phase: "references", done: self.report.entries, total: 0 });
            }
            let Some(body) = self.references.body(&key, &value) else { continue };
            // Uses of one body lie side by side.
            if last.replace(body) == Some(body) {
                continue;
            }
            let path = dir.join(format!("{:02x}", body.0[0])).join(body.to_string());
            if !path.with_extension("body").exists() && !path.exists() {
                self.report.find(Severity::Loss, format!("body {body} is used and is gone"));
            }
        }
        Ok(())
    }

    /// How many keys of the tree differ from the truth; without one, whether it can be read at all.
    fn compare(&mut self, tree: &Tree, mut merge: Option<Merge>) -> Result<u64, StoreError> {
        let mut pages = Pages::new(tree);
        let (mut differences, mut done) = (0, 0);
        let mut theirs = pages.next()?;
        let Some(merge) = merge.as_mut() else {
            while theirs.is_some() {
                theirs = pages.next()?;
            }
            return Ok(0);
        };
        let mut ours = merge.next()?;
        loop {
            done += 1;
            if done % 10_000 == 0 {
                (self.watch)(Progress { phase: "index", done, total: self.report.entries });
            }
            match (&ours, &theirs) {
                (None, None) => return Ok(differences),
                (Some(our), Some(their)) if our.0 == their.0 => {
                    differences += u64::from(our.1 != their.1);
                    ours = merge.next()?;
                    theirs = pages.next()?;
                }
                (Some(our), Some(their)) if our.0 > their.0 => {
                    differences += 1;
                    theirs = pages.next()?;
                }
                (None, Some(_)) => {
                    differences += 1;
                    theirs = pages.next()?;
                }
                (Some(_), _) => {
                    differences += 1;
                    ours = merge.next()?;
                }
            }
        }
    }

    fn repair(&mut self, truth: Option<&Truth>, index: Option<&(Tree, u64)>) -> Result<(), StoreError> {
        let ahead = index.as_ref().is_some_and(|(_, made)| truth.is_some_and(|truth| *made > truth.through));
        match (truth.filter(|_| !ahead), index) {
            (Some(truth), index) => {
                if let Some((through, _)) = truth.base.as_ref().filter(|_| self.damaged_before) {
                    journal::trim(&self.place.journal(), &*self.place.disk, *through)?;
                    self.report.repairs.push("removed the damaged journal before the snapshot".to_owned());
                }
                if index.is_none() && self.place.index().exists() {
                    self.place.set_index_aside()?;
                    self.report.repairs.push("set the index aside: the next start makes it anew".to_owned());
                }
                let newest = snapshot::list(&self.place.snapshots())?.pop();
                if newest.as_ref().is_some_and(|newest| Some(newest) != truth.base.as_ref()) {
                    let path = snapshot::path_of(&self.place.snapshots(), truth.through);
                    upkeep::write(
                        &self.place,
                        self.options,
                        truth.base.as_ref(),
                        truth.through,
                        &mut |_| Ok(()),
                    )?;
                    self.report.repairs.push(format!("made a snapshot, {}", path.display()));
                    self.set_damaged_snapshots_aside(truth.through)?;
                }
                Ok(())
            }
            (None, Some((tree, made))) => self.go_on_from(tree, *made),
            (None, None) => {
                let what = "neither the journal nor the index is whole: only `directpush-be restore` helps";
                self.report.find(Severity::Loss, what);
                Ok(())
            }
        }
    }

    /// Makes a snapshot out of the index and what the journal still has behind it, and begins a new journal.
    fn go_on_from(&mut self, tree: &Tree, made: u64) -> Result<(), StoreError> {
        let fail = |failure| StoreError::io("write the index", std::io::Error::other::<sled::Error>(failure));
        let (index_has, highest) = journal::salvage(&self.place.journal(), made, |position, writes| {
            tree.stage(position, &writes).and_then(|batch| tree.apply(batch)).map_err(fail)
        })?;
        if index_has > made {
            let what = format!("took {} commits behind the index from the journal", index_has - made);
            self.report.repairs.push(what);
        }
        let dir = self.place.snapshots();
        super::disk::make_dir(&*self.place.disk, &dir)?;
        // Older names first, lest one of them stands where the new snapshot will.
        self.set_damaged_snapshots_aside(0)?;
        // One that knows more is the better one to go on from.
        let newer = self.newest.as_ref().map(|(through, _)| *through).filter(|through| *through > index_has);
        let has = newer.unwrap_or(index_has);
        let from =
            if newer.is_some() { "kept the newest snapshot" } else { "made a snapshot out of the index" };
        if newer.is_none() {
            let path = snapshot::path_of(&dir, has);
            let mut writer = SnapshotWriter::create(Arc::clone(&self.place.disk), &path, has)?;
            let mut pages = Pages::new(tree);
            while let Some((key, value)) = pages.next()? {
                writer.add(&key, Some(&value))?;
            }
            writer.finish()?;
        }
        let aside = self.place.replace_journal(has)?;
        let aside = aside.map_or_else(|| "no journal".to_owned(), |aside| aside.display().to_string());
        if highest > has {
            let what = format!("commits {} to {highest} are lost, but for what is whole in {aside}", has + 1);
            self.report.find(Severity::Loss, what);
        }
        self.report.repairs.push(format!("{from}; what it lacks, if anything, is in {aside}"));
        Ok(())
    }

    /// Renames the snapshots that cannot be read, but the one at `keep`.
    fn set_damaged_snapshots_aside(&mut self, keep: u64) -> Result<(), StoreError> {
        for (through, path) in snapshot::list(&self.place.snapshots())? {
            if through != keep
                && let Err(damage) = SnapshotReader::open(&path).and_then(|reader| reader.verify(|_| Ok(())))
                && damage.is_damage()
            {
                snapshot::set_aside(&*self.place.disk, &path)?;
                self.report.repairs.push(format!("set a damaged snapshot aside, {}", path.display()));
            }
        }
        Ok(())
    }

    /// Compares each body with its hash, and looks for those without a use.
    ///
    /// `index` is the truth; without it, nobody knows what is used.
    fn bodies(&mut self, repair: bool, index: Option<&Tree>) -> Result<(), StoreError> {
        if !self.place.bodies().exists() {
            return Ok(());
        }
        let bodies = FileBodies::open(Arc::clone(&self.place), 1)?;
        let mut after = None;
        loop {
            let page = bodies.list_now(after, 1000)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id);
            (self.watch)(Progress {
                phase: "bodies",
                done: u64::from(last.id.0[0]) * 256 + u64::from(last.id.0[1]),
                total: 65_536,
            });
            for entry in page {
                match bodies.verify(entry.id) {
                    Ok((bytes, sealed)) => {
                        self.report.bodies += 1;
                        self.report.body_bytes += bytes;
                        self.report.bodies_unhashed += u64::from(!sealed);
                    }
                    Err(damage) if damage.is_damage() => {
                        let why = std::error::Error::source(&damage).map(|why| format!(": {why}"));
                        self.report.find(Severity::Loss, format!("{damage}{}", why.unwrap_or_default()));
                    }
                    Err(error) => return Err(error),
                }
                let Some(tree) = index else { continue };
                let range = self.references.uses(entry.id);
                let used = tree.read(&super::Read::default().range(Range { limit: 1, ..range }));
                if used.is_ok_and(|found| found.ranges.iter().all(Vec::is_empty)) {
                    self.report.unreferenced += 1;
                    if repair {
                        bodies.delete_now(entry.id)?;
                    }
                }
            }
        }
    }
}

/// A tree's entries in order, some at a time.
struct Pages<'a> {
    tree: &'a Tree,
    page: std::vec::IntoIter<(Key, Value)>,
    after: Option<Key>,
    ended: bool,
}

impl<'a> Pages<'a> {
    fn new(tree: &'a Tree) -> Self {
        Self { tree, page: Vec::new().into_iter(), after: None, ended: false }
    }

    fn next(&mut self) -> Result<Option<(Key, Value)>, StoreError> {
        if let Some(entry) = self.page.next() {
            return Ok(Some(entry));
        }
        if self.ended {
            return Ok(None);
        }
        let start = self.after.take().map_or_else(Key::new, |mut last| {
            last.push(0);
            last
        });
        let range = Range { start, limit: PAGE, ..Range::prefix(b"", PAGE) };
        let read = self
            .tree
            .read(&super::Read::default().range(range))
            .map_err(|failure| StoreError::io("read the index", std::io::Error::other(failure)))?;
        let page = read.ranges.into_iter().next().unwrap_or_default();
        self.ended = page.len() < PAGE;
        self.after = page.last().map(|(key, _)| key.clone());
        self.page = page.into_iter();
        Ok(self.page.next())
    }
}
