//! Opening a snapshot for a machine.

use std::{fs::File, os::fd::OwnedFd, sync::Arc};

use pool_api::SnapshotId;
use vmm_api::{DiskLayer, MemorySource};

use crate::{
    Damage, Digest, DiskManifest, FileRef, Layer, LayerError, LayerRef, Manifest, OpenError, Pin,
    Stack, StackPager, Store, files::open_sized, manifest::blocks, pager::working_set,
    resident::ComposeError,
};

/// The source of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryMode {
    /// `Cow` if the memory is in RAM already, else `Paged`.
    #[default]
    Auto,
    /// Private mappings of shared RAM, loaded first if necessary.
    Cow,
    /// Page by page, from a pager.
    Paged,
}

/// A snapshot ready to load.
#[derive(Debug)]
pub struct OpenSnapshot {
    /// Pins its files.
    pub pin: Pin,
    /// Its manifest.
    pub manifest: Manifest,
    /// State and memory, if the snapshot has them and they are wanted.
    pub machine: Option<OpenMachine>,
    /// Its disks, fully checked.
    pub disks: Vec<OpenDisk>,
}

/// State and memory of a snapshot.
#[derive(Debug)]
pub struct OpenMachine {
    /// The machine's state, checked.
    pub image: File,
    /// Its memory.
    pub memory: MemorySource,
    /// The pager of `Paged` memory.
    pub pager: Option<Arc<StackPager>>,
}

/// A disk of a snapshot, without a top layer.
#[derive(Debug)]
pub struct OpenDisk {
    /// Its size in bytes.
    pub size: u64,
    /// The image below its layers.
    pub base: File,
    /// Returns the layers, oldest first.
    pub layers: Vec<DiskLayer>,
}

impl Store {
    /// Opens a snapshot. A pager calls `on_damage`, on its own thread, when it cannot serve a page; the fault stays
    /// unanswered, and the machine must be killed.
    pub fn open_snapshot(
        &self,
        id: &SnapshotId,
        mode: MemoryMode,
        on_damage: impl Fn(Damage) + Send + Sync + 'static,
    ) -> Result<OpenSnapshot, OpenError> {
        let mut opened = self.open_disk_only(id)?;
        if let Some(file) = &opened.manifest.machine {
            let image = self.open_image(id, file)?;
            let machine = self.open_machine(id, &opened.manifest, image, mode, on_damage)?;
            opened.machine = Some(machine);
        }
        Ok(opened)
    }

    /// Opens the disks of a snapshot only.
    pub fn open_disk_only(&self, id: &SnapshotId) -> Result<OpenSnapshot, OpenError> {
        let pin = self.pin(id);
        let manifest = self.manifest(id)?;
        let mut disks = Vec::with_capacity(manifest.disks.len());
        for (number, disk) in manifest.disks.iter().enumerate() {
            disks.push(self.open_disk(id, number, disk)?);
        }
        Ok(OpenSnapshot {
            pin,
            manifest,
            machine: None,
            disks,
        })
    }

    fn open_machine(
        &self,
        id: &SnapshotId,
        manifest: &Manifest,
        image: File,
        mode: MemoryMode,
        on_damage: impl Fn(Damage) + Send + Sync + 'static,
    ) -> Result<OpenMachine, OpenError> {
        let resident = match mode {
            MemoryMode::Auto => self.residents.get(id),
            MemoryMode::Cow => Some(self.resident(id, manifest)?),
            MemoryMode::Paged => None,
        };
        let (memory, pager) = match resident {
            Some(memory) => (MemorySource::Cow(memory), None),
            None => {
                let stack = self.stack(id, manifest)?;
                let path = self.path(id).join("working-set");
                let recorded = working_set::load(&path, manifest.pages());
                let pager = Arc::new(StackPager::new(
                    stack,
                    manifest.pages(),
                    recorded,
                    path,
                    on_damage,
                ));
                (
                    MemorySource::Paged(Arc::clone(&pager) as Arc<dyn vmm_api::Pager>),
                    Some(pager),
                )
            }
        };
        Ok(OpenMachine {
            image,
            memory,
            pager,
        })
    }

    /// Loads the memory of a snapshot into RAM, where it stays while the returned descriptor exists.
    pub fn keep_resident(&self, id: &SnapshotId) -> Result<Arc<OwnedFd>, OpenError> {
        self.resident(id, &self.manifest(id)?)
    }

    fn resident(&self, id: &SnapshotId, manifest: &Manifest) -> Result<Arc<OwnedFd>, OpenError> {
        let stack = || self.stack(id, manifest);
        self.residents
            .get_or_compose(id, manifest.pages(), stack)
            .map_err(|error| match error {
                ComposeError::Layer(error) => OpenError::Layer(error),
                ComposeError::Memory(source) => OpenError::Memory {
                    id: id.clone(),
                    source,
                },
            })
    }

    fn stack(&self, id: &SnapshotId, manifest: &Manifest) -> Result<Stack, LayerError> {
        let open = |layer: &LayerRef| {
            self.open_layer(id, layer, "memory", manifest.pages())
                .map(Arc::new)
        };
        Ok(Stack::new(
            manifest
                .memory
                .layers
                .iter()
                .map(open)
                .collect::<Result<_, _>>()?,
        ))
    }

    fn open_layer(
        &self,
        id: &SnapshotId,
        layer: &LayerRef,
        name: &str,
        pages: u32,
    ) -> Result<Layer, LayerError> {
        let owner = layer.owner.as_ref().unwrap_or(id);
        Layer::open(&self.path(owner).join(name), pages, Some(layer.digest))
    }

    fn open_image(&self, id: &SnapshotId, named: &FileRef) -> Result<File, OpenError> {
        let path = self.path(id).join("machine");
        let file = open_sized(&path, named.len)?;
        let digest = Digest::of_reader(&file).map_err(|source| OpenError::Io {
            path: path.clone(),
            source,
        })?;
        if digest != named.digest {
            return Err(OpenError::Damaged {
                path,
                what: "wrong digest",
            });
        }
        // The digest moved the file position.
        open_sized(&path, named.len)
    }

    fn open_disk(
        &self,
        id: &SnapshotId,
        number: usize,
        disk: &DiskManifest,
    ) -> Result<OpenDisk, OpenError> {
        Ok(OpenDisk {
            size: disk.size,
            base: self.open_base(&disk.base)?,
            layers: self.open_disk_layers(id, number, disk)?,
        })
    }

    /// Opens the layers of a snapshot's disk, checked, oldest first.
    pub fn open_disk_layers(
        &self,
        id: &SnapshotId,
        number: usize,
        disk: &DiskManifest,
    ) -> Result<Vec<DiskLayer>, OpenError> {
        let blocks = blocks(disk.size).unwrap_or(0);
        let mut layers = Vec::with_capacity(disk.chain.layers.len());
        for layer in &disk.chain.layers {
            let layer = self.open_layer(id, layer, &format!("disk{number}"), blocks)?;
            let checked = self.verified.check(layer.digest(), layer.file(), || {
                layer.verify()?;
                Ok::<_, OpenError>(true)
            });
            // A layer that does not match is an error of `verify`.
            let _matches = checked?;
            let file = layer.file().try_clone();
            layers.push(DiskLayer {
                file: file.map_err(|source| OpenError::Io {
                    path: layer.path().to_owned(),
                    source,
                })?,
                bitmap_offset: layer.layout().bitmap_offset,
                blocks_offset: layer.layout().pages_offset,
            });
        }
        Ok(layers)
    }
}
