/// A volume that somebody created, as `volume inspect` shows it.
public struct Volume: Codable, Sendable, Equatable {
  public var name: String
  public var driver: String
  public var created: Timestamp
  public var mountpoint: String
  public var labels: [String: String]
  public var options: [String: String]
  /// Made by `-v /path` or an image's VOLUME, without a name of its own: goes with its container on `--rm`.
  public var isAnonymous: Bool
  /// The container that an anonymous volume was made for, as long as it goes with that container: without one it is a
  /// leftover.
  public var container: ObjectID?

  public init(
    name: String, driver: String, created: Timestamp, mountpoint: String, labels: [String: String],
    options: [String: String], isAnonymous: Bool, container: ObjectID? = nil
  ) {
    self.name = name
    self.driver = driver
    self.created = created
    self.mountpoint = mountpoint
    self.labels = labels
    self.options = options
    self.isAnonymous = isAnonymous
    self.container = container
  }
}

/// One mount of a container, as asked for by `-v`, `--mount`, `--tmpfs` or an image's VOLUME.
public struct MountRequest: Codable, Sendable, Equatable {
  public enum Kind: String, Codable, Sendable {
    case volume
    case bind
    case tmpfs
  }
  public var kind: Kind
  /// The volume's name (empty: anonymous), the host's path for a bind, empty for a tmpfs.
  public var source: String
  /// An absolute path inside the container.
  public var target: String
  public var isReadOnly: Bool
  /// The volume's driver, or nil for the default.
  public var driver: String?
  public var driverOptions: [String: String]
  public var labels: [String: String]
  /// `-v` makes a missing host directory; `--mount` refuses.
  public var createsSource: Bool
  /// False for `nocopy`: the volume is not filled from the image.
  public var copiesImage: Bool
  /// A directory beneath the volume's root, or empty.
  public var subpath: String
  /// `rprivate` and its companions (mount_namespaces(7)); empty for the default.
  public var propagation: String
  /// For a bind: false for `bind-nonrecursive`.
  public var isRecursive: Bool
  /// Options of a tmpfs: `size=64m`, `mode=1777`, `noexec`, ...
  public var tmpfsOptions: [String]

  public init(
    kind: Kind, source: String, target: String, isReadOnly: Bool = false, driver: String? = nil,
    driverOptions: [String: String] = [:], labels: [String: String] = [:], createsSource: Bool = false,
    copiesImage: Bool = true, subpath: String = "", propagation: String = "", isRecursive: Bool = true,
    tmpfsOptions: [String] = []
  ) {
    self.kind = kind
    self.source = source
    self.target = target
    self.isReadOnly = isReadOnly
    self.driver = driver
    self.driverOptions = driverOptions
    self.labels = labels
    self.createsSource = createsSource
    self.copiesImage = copiesImage
    self.subpath = subpath
    self.propagation = propagation
    self.isRecursive = isRecursive
    self.tmpfsOptions = tmpfsOptions
  }
}

/// A mount of a container as it was made: what `inspect` shows under `Mounts`.
public struct MountPoint: Codable, Sendable, Equatable {
  public var kind: MountRequest.Kind
  /// The volume's name; empty for a bind or a tmpfs.
  public var volume: String
  /// The path on the host; empty for a tmpfs.
  public var source: String
  public var target: String
  public var driver: String
  public var isReadOnly: Bool
  public var propagation: String

  public init(
    kind: MountRequest.Kind, volume: String, source: String, target: String, driver: String, isReadOnly: Bool,
    propagation: String
  ) {
    self.kind = kind
    self.volume = volume
    self.source = source
    self.target = target
    self.driver = driver
    self.isReadOnly = isReadOnly
    self.propagation = propagation
  }
}

// What users and the lifecycle ask of the volume catalog.

/// Makes a volume; one of the same name, driver and options is returned as it is.
public struct VolumeCreate: Request {
  public static let name = "volume.create"
  public typealias Reply = Volume
  /// Nil for an anonymous one with a name of 64 hexadecimal digits.
  public var volumeName: String?
  public var driver: String?
  public var options: [String: String]
  public var labels: [String: String]

  public init(volumeName: String?, driver: String?, options: [String: String], labels: [String: String]) {
    self.volumeName = volumeName
    self.driver = driver
    self.options = options
    self.labels = labels
  }
}

public struct VolumeList: Request {
  public static let name = "volume.list"
  public static let isRepeatable = true
  public typealias Reply = [Volume]

  public init() {}
}

/// `notFound` says `get x: no such volume`.
public struct VolumeInspect: Request {
  public static let name = "volume.inspect"
  public static let isRepeatable = true
  public typealias Reply = Volume
  public var volume: String

  public init(volume: String) { self.volume = volume }
}

/// `inUse` says `remove x: volume is in use - [id, id]`.
public struct VolumeRemove: Request {
  public static let name = "volume.remove"
  public typealias Reply = Done
  public var volume: String
  public var force: Bool

  public init(volume: String, force: Bool) {
    self.volume = volume
    self.force = force
  }
}

/// Removes a volume as `VolumeRemove` does with `force`; where its driver is gone, its record alone.
public struct VolumeForget: Request {
  public static let name = "volume.forget"
  public struct Reply: Codable, Sendable, Equatable {
    /// What may remain and where, for people.
    public var warnings: [String]

    public init(warnings: [String]) { self.warnings = warnings }
  }
  public var volume: String

  public init(volume: String) { self.volume = volume }
}

/// A container is about to be removed without its anonymous volumes: from now on they are like named ones.
public struct VolumeKeep: Request {
  public static let name = "volume.keep"
  public typealias Reply = Done
  public var container: ObjectID

  public init(container: ObjectID) { self.container = container }
}

/// Makes the volumes that a container's mounts name and do not exist yet, and says what each mount will be. Called
/// when the container is created; nothing is mounted.
public struct VolumePrepare: Request {
  public static let name = "volume.prepare"
  public typealias Reply = [MountPoint]
  public var container: ObjectID
  public var mounts: [MountRequest]

  public init(container: ObjectID, mounts: [MountRequest]) {
    self.container = container
    self.mounts = mounts
  }
}

/// Mounts everything a container wants, as detached mounts in the order of `mounts`.
public struct VolumeMount: Request {
  public static let name = "volume.mount"
  public struct Mounted: Codable, Sendable {
    public var point: MountPoint
    /// A detached mount, read-only recursively where asked for; a directory or, for a bind of a file, a file.
    public var mount: Descriptor
    public var isDirectory: Bool

    public init(point: MountPoint, mount: Descriptor, isDirectory: Bool) {
      self.point = point
      self.mount = mount
      self.isDirectory = isDirectory
    }
  }
  public typealias Reply = [Mounted]
  public var container: ObjectID
  /// As `VolumePrepare` was asked; the sources of anonymous volumes are filled in by `points`.
  public var mounts: [MountRequest]
  public var points: [MountPoint]
  /// A detached mount of the container's root, from which empty volumes are filled.
  public var root: Descriptor

  public init(container: ObjectID, mounts: [MountRequest], points: [MountPoint], root: Descriptor) {
    self.container = container
    self.mounts = mounts
    self.points = points
    self.root = root
  }
}

/// Tells that a container no longer has its volumes mounted; drivers that mount on first use unmount on the last.
public struct VolumeUnmount: Request {
  public static let name = "volume.unmount"
  public typealias Reply = Done
  public var container: ObjectID

  public init(container: ObjectID) { self.container = container }
}

// Role "volume": what a volume driver answers. Each message is routed by the driver's name.

/// Makes the volume's storage. Making it twice is not an error. An unknown option is `invalidArgument` that names it.
public struct VolumeDriverCreate: Request {
  public static let name = "volume.driver.create"
  public struct Reply: Codable, Sendable, Equatable {
    /// The path on the host where the data is, or empty when there is none before it is mounted.
    public var mountpoint: String

    public init(mountpoint: String) { self.mountpoint = mountpoint }
  }
  public var volume: String
  public var options: [String: String]

  public init(volume: String, options: [String: String]) {
    self.volume = volume
    self.options = options
  }
}

/// Removes the volume's storage with its data. Removing what is not there is done already.
public struct VolumeDriverRemove: Request {
  public static let name = "volume.driver.remove"
  public typealias Reply = Done
  public var volume: String

  public init(volume: String) { self.volume = volume }
}

/// Gives the volume for one container.
public struct VolumeDriverMount: Request {
  public static let name = "volume.driver.mount"
  public struct Reply: Codable, Sendable {
    /// A detached mount or an open directory (of which the catalog makes one), or nil when `path` says where it is.
    public var mount: Descriptor?
    public var path: String

    public init(mount: Descriptor?, path: String) {
      self.mount = mount
      self.path = path
    }
  }
  public var volume: String
  public var container: ObjectID
  public var options: [String: String]

  public init(volume: String, container: ObjectID, options: [String: String]) {
    self.volume = volume
    self.container = container
    self.options = options
  }
}

public struct VolumeDriverUnmount: Request {
  public static let name = "volume.driver.unmount"
  public typealias Reply = Done
  public var volume: String
  public var container: ObjectID

  public init(volume: String, container: ObjectID) {
    self.volume = volume
    self.container = container
  }
}
