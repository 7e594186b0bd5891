// Role "snapshot": layers of images kept unpacked, and the writable file system of each container above them.
// A driver is named in the route; the default is "overlay".

/// Unpacks one layer above its parent and keeps it under its chain ID. A layer that is there already is not unpacked
/// again (the stream is still read to its end and its digest checked). Nothing of a layer that fails stays.
///
/// With `waitsForParent` the parent may be on its way: the layer is unpacked, and what needs the parent (a hard link to a
/// file of a lower layer, directories that the archive does not describe) is done when that is there. Somebody must see
/// to it that it comes, or cancel the request.
public struct SnapshotApply: Request {
  public static let name = "snapshot.apply"
  public struct Reply: Codable, Sendable, Equatable {
    /// The SHA-256 of the uncompressed tar stream as it was read.
    public var differenceID: Digest
    /// The chain ID under which the layer is kept.
    public var chainID: Digest
    /// Bytes of the regular files of this layer.
    public var size: Int64

    public init(differenceID: Digest, chainID: Digest, size: Int64) {
      self.differenceID = differenceID
      self.chainID = chainID
      self.size = size
    }
  }
  /// The chain ID of the layer below, or nil for the lowest.
  public var parent: Digest?
  /// The digest the uncompressed stream must have, or nil to take what comes.
  public var differenceID: Digest?
  /// The uncompressed tar stream, read to its end.
  public var archive: Descriptor
  public var waitsForParent: Bool
  /// Bytes that its files may take on the disk, or nil for any number.
  public var limit: Int64?

  public init(
    parent: Digest?, differenceID: Digest?, archive: Descriptor, waitsForParent: Bool = false, limit: Int64? = nil
  ) {
    self.limit = limit
    self.parent = parent
    self.differenceID = differenceID
    self.archive = archive
    self.waitsForParent = waitsForParent
  }
}

/// Removes unpacked layers that no image needs any more. Unknown ones are passed over.
public struct SnapshotRemoveLayers: Request {
  public static let name = "snapshot.remove-layers"
  public typealias Reply = Done
  public var chainIDs: [Digest]

  public init(chainIDs: [Digest]) { self.chainIDs = chainIDs }
}

/// Makes every layer that was applied so far survive a power failure; asked before an image is recorded,
/// or right after one was pulled.
public struct SnapshotSync: Request {
  public static let name = "snapshot.sync"
  public typealias Reply = Done

  public init() {}
}

/// The layers that are there, for collection and `system check`.
public struct SnapshotLayers: Request {
  public static let name = "snapshot.layers"
  public typealias Reply = [Digest]

  public init() {}
}

/// Makes (or finds again) the writable layer of a container and mounts the whole.
public struct SnapshotMount: Request {
  public static let name = "snapshot.mount"
  public struct Reply: Codable, Sendable {
    /// A detached mount of the root file system.
    public var root: Descriptor

    public init(root: Descriptor) { self.root = root }
  }
  public var container: ObjectID
  /// Chain IDs, lowest first.
  public var layers: [Digest]
  /// The writable layer is thrown away after this run: nothing has to be synced for it.
  public var discardable: Bool

  public init(container: ObjectID, layers: [Digest], discardable: Bool) {
    self.container = container
    self.layers = layers
    self.discardable = discardable
  }
}

/// Removes a container's writable layer. One that is not there is done already.
public struct SnapshotRemove: Request {
  public static let name = "snapshot.remove"
  public typealias Reply = Done
  public var container: ObjectID

  public init(container: ObjectID) { self.container = container }
}

/// Writes what a container's file system holds now as a tar archive, without what is mounted into it; the container may
/// run meanwhile.
public struct SnapshotExport: Request {
  public static let name = "snapshot.export"
  public typealias Reply = Done
  public var container: ObjectID
  /// Chain IDs, lowest first.
  public var layers: [Digest]
  /// A file or pipe, written to its end.
  public var output: Descriptor

  public init(container: ObjectID, layers: [Digest], output: Descriptor) {
    self.container = container
    self.layers = layers
    self.output = output
  }
}

/// One file that a container's file system has, lacks or has otherwise than its image.
public struct FileDifference: Codable, Sendable, Equatable {
  public enum Kind: String, Codable, Sendable {
    case added = "A"
    case changed = "C"
    case deleted = "D"
  }
  public var kind: Kind
  /// Absolute, in the container.
  public var path: String

  public init(kind: Kind, path: String) {
    self.kind = kind
    self.path = path
  }
}

/// What is in a container's writable layer, in the order of the paths.
public struct SnapshotDifferences: Request {
  public static let name = "snapshot.differences"
  public typealias Reply = [FileDifference]
  public var container: ObjectID
  /// Chain IDs, lowest first.
  public var layers: [Digest]
  /// Files and directories that the engine makes for its mounts; they are not told where the image has none.
  public var ignored: [String]

  public init(container: ObjectID, layers: [Digest], ignored: [String]) {
    self.container = container
    self.layers = layers
    self.ignored = ignored
  }
}

/// The bytes in a container's writable layer.
public struct SnapshotUsage: Request {
  public static let name = "snapshot.usage"
  public typealias Reply = Int64
  public var container: ObjectID

  public init(container: ObjectID) { self.container = container }
}
