//! Configurations that are kept, for as long as their options and the files that these name stay the same.
//!
//! They are shared by every Lua state of the process.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use crate::error::Error;

/// The configurations `C` by their options `O`, the one that was used last at the end.
pub struct Kept<O, C>(Mutex<Vec<(O, Stamps, C)>>);

/// How many are kept.
const MOST: usize = 64;

impl<O: Clone + Eq, C: Clone> Kept<O, C> {
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The same one for the same options, as long as their files, of which `stamps` are, do not change.
    pub fn get(
        &self,
        options: &O,
        stamps: &Stamps,
        make: impl FnOnce(&O) -> Result<C, Error>,
    ) -> Result<C, Error> {
        if let Some(config) = self.find(options, stamps) {
            return Ok(config);
        }
        // Files are read while nobody else has to wait for that.
        let config = make(options)?;
        if stamps.are_settled() {
            let mut kept = self.lock();
            // What its files were before is of no use any more.
            kept.retain(|(known, ..)| known != options);
            if kept.len() == MOST {
                kept.remove(0);
            }
            kept.push((options.clone(), stamps.clone(), config.clone()));
        }
        Ok(config)
    }

    fn find(&self, options: &O, stamps: &Stamps) -> Option<C> {
        let mut kept = self.lock();
        let at = kept.iter().position(|(known, state, _)| known == options && state == stamps)?;
        kept[at..].rotate_left(1);
        kept.last().map(|(.., config)| config.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(O, Stamps, C)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which states of some files were read; `None`: there is no such file.
#[derive(Clone, Eq, PartialEq)]
pub struct Stamps(Vec<Option<Stamp>>);

#[derive(Clone, Eq, PartialEq)]
struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
    /// Which file it is, and when anything of it changed last: a modification time can be put back.
    #[cfg(unix)]
    file: [i64; 4],
    is_settled: bool,
}

/// Changes that follow each other faster may bear the same time; the second is for file systems that count whole seconds
/// or two.
const TICKS: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(2)];

impl Stamps {
    pub fn of<'a>(files: impl Iterator<Item = &'a Path>) -> Self {
        Self(files.map(Stamp::of).collect())
    }

    /// Whether a change from now on would be seen.
    pub fn are_settled(&self) -> bool {
        self.0.iter().flatten().all(|stamp| stamp.is_settled)
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let it = fs::metadata(path).ok()?;
        let modified = it.modified().ok();
        #[cfg(unix)]
        let (file, changed) = {
            use std::os::unix::fs::MetadataExt;
            let since_epoch = Duration::from_nanos(it.ctime_nsec().unsigned_abs())
                + Duration::from_secs(it.ctime().unsigned_abs());
            let file = [it.dev().cast_signed(), it.ino().cast_signed(), it.ctime(), it.ctime_nsec()];
            (file, Some(SystemTime::UNIX_EPOCH + since_epoch))
        };
        #[cfg(not(unix))]
        let changed = modified;
        let age = changed.and_then(|at| SystemTime::now().duration_since(at).ok());
        let is_coarse = changed
            .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
            .is_none_or(|since| since.subsec_nanos() == 0);
        Some(Self {
            size: it.len(),
            modified,
            #[cfg(unix)]
            file,
            is_settled: age.is_none_or(|age| age > TICKS[usize::from(is_coarse)]),
        })
    }
}
