//! Reading events back: which of a segment may be meant, by its index, and their lines.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use super::index::{View, Wanted};
use super::line::WORD;
use super::walk::remake;
use super::{Store, StoreError, index_name, segment_name};
use crate::disk::{DiskError, Sheet, read_all};
use crate::event::{LONGEST, Micros};

/// An event's place: segment, and which of its events. Ascends in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub segment: u64,
    pub event: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.segment, self.event)
    }
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let place = text.split_once('-').and_then(|(segment, event)| {
            Some(Self {
                segment: segment.parse().ok()?,
                event: event.parse().ok()?,
            })
        });
        place.ok_or("a place is written as in 12-3456, as the page before told it")
    }
}

/// An event's JSON text as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub place: Place,
    pub json: String,
}

/// Events of one segment that may be meant.
pub(crate) struct Found {
    segment: u64,
    sheet: Arc<dyn Sheet>,
    /// Event and offset, ascending.
    pub(crate) events: Vec<(usize, u64)>,
}

impl Store {
    /// Segments that may hold events between these moments, ascending.
    pub(crate) fn segments_between(&self, from: Option<Micros>, to: Option<Micros>) -> Vec<u64> {
        let writer = self.writer();
        let meant = writer.segments.iter().filter(|(_, summary)| {
            summary.span.is_some_and(|(first, last)| {
                from.is_none_or(|from| last >= from) && to.is_none_or(|to| first < to)
            })
        });
        meant.map(|(number, _)| *number).collect()
    }

    /// Of the event that came last; None: there was none.
    pub(crate) fn last_place(&self) -> Option<Place> {
        let writer = self.writer();
        match writer.index.events().checked_sub(1) {
            Some(event) => Some(Place {
                segment: writer.number,
                event,
            }),
            // All that is before the first line of this segment.
            None => Some(Place {
                segment: writer.number.checked_sub(1)?,
                event: usize::MAX - 1,
            }),
        }
    }

    /// None: retention has removed the segment meanwhile.
    pub(crate) fn find(
        &self,
        segment: u64,
        wanted: &Wanted<'_>,
        range: Range<usize>,
    ) -> Result<Option<Found>, StoreError> {
        let bytes = {
            let writer = self.writer();
            let Some(summary) = writer.segments.get(&segment) else {
                return Ok(None);
            };
            if segment == writer.number {
                return Ok(Some(Found {
                    segment,
                    sheet: Arc::clone(&writer.sheet),
                    events: offsets(&writer.index.view(), wanted, range),
                }));
            }
            summary.bytes
        };
        let name = segment_name(segment);
        let path = || self.disk.place().join(&name);
        let sheet = match self.disk.open(&name) {
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(DiskError::of("opening", path()))?,
        };
        let read = self
            .disk
            .open(&index_name(segment))
            .and_then(|index| read_all(&*index));
        let view = read
            .as_deref()
            .ok()
            .and_then(|read| View::checked(read, bytes));
        let events = if let Some(view) = view {
            offsets(&view, wanted, range)
        } else {
            let text = read_all(&*sheet).map_err(DiskError::of("reading", path()))?;
            offsets(&remake(&text).view(), wanted, range)
        };
        Ok(Some(Found {
            segment,
            sheet,
            events,
        }))
    }
}

fn offsets(view: &View<'_>, wanted: &Wanted<'_>, range: Range<usize>) -> Vec<(usize, u64)> {
    let events = view.matches(wanted, range).into_iter();
    events
        .filter_map(|event| Some((event, view.offset(event)?)))
        .collect()
}

impl Found {
    pub(crate) fn line(&self, event: usize, offset: u64) -> Result<Line, DiskError> {
        let failed = || DiskError::of("reading", segment_name(self.segment).into());
        let mut bytes = vec![0; 2048];
        loop {
            let filled = self.sheet.read_at(offset, &mut bytes).map_err(failed())?;
            let read = bytes.get(..filled).unwrap_or_default();
            if let Some(end) = read.iter().position(|byte| *byte == b'\n') {
                let json = read.get(WORD + 1..end).unwrap_or_default();
                return Ok(Line {
                    place: Place {
                        segment: self.segment,
                        event,
                    },
                    json: String::from_utf8_lossy(json).into_owned(),
                });
            }
            if filled < bytes.len() || bytes.len() > LONGEST * 2 {
                let source = std::io::Error::other(format!("there is no line at byte {offset}"));
                return Err(failed()(source));
            }
            bytes.resize(bytes.len() * 4, 0);
        }
    }
}
