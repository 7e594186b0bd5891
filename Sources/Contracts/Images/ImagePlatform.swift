/// What an image runs on, in the words of Go: `linux/arm/v7` (OCI image specification, image-index.md, "platform").
public struct ImagePlatform: Codable, Sendable, Hashable, CustomStringConvertible {
  public var os: String
  public var architecture: String
  public var variant: String?

  public init(os: String, architecture: String, variant: String? = nil) {
    self.os = os
    self.architecture = architecture
    self.variant = variant
  }

  /// This machine.
  public static let host: ImagePlatform = {
    #if arch(x86_64)
      ImagePlatform(os: "linux", architecture: "amd64")
    #elseif arch(arm64)
      ImagePlatform(os: "linux", architecture: "arm64")
    #else
      ImagePlatform(os: "linux", architecture: "unknown")
    #endif
  }()

  /// Whether an image for this platform is what somebody means who names another: one that says no variant has any.
  public func satisfies(_ wanted: ImagePlatform) -> Bool {
    let (own, wanted) = (normalized, wanted.normalized)
    if own == wanted || architecture.isEmpty { return true }
    return own.os == wanted.os && own.architecture == wanted.architecture
      && (own.variant == nil || wanted.variant == nil)
  }

  /// Reads what people write: `linux/arm64`, `arm/v7`, `amd64`, `linux`; what is left out is the host's.
  ///
  /// - Throws: `invalidArgument` that quotes the text.
  public init(parsing text: String, host: ImagePlatform) throws(EngineError) {
    let parts = text.lowercased().split(separator: "/", omittingEmptySubsequences: false).map(String.init)
    guard parts.count <= 3, parts.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy(Self.isPart) }) else {
      throw EngineError(
        .invalidArgument, "\"\(text)\": platform specifier component must match \"^[A-Za-z0-9_-]+$\"")
    }
    if parts.count == 1 {
      if Self.systems.contains(parts[0]) {
        self = ImagePlatform(os: parts[0], architecture: host.architecture, variant: host.variant).normalized
      } else {
        self = ImagePlatform(os: host.os, architecture: parts[0]).normalized
        guard Self.architectures.contains(architecture) else {
          throw EngineError(.invalidArgument, "\"\(text)\": unknown operating system or architecture")
        }
      }
    } else if parts.count == 2, !Self.systems.contains(parts[0]) {
      self = ImagePlatform(os: host.os, architecture: parts[0], variant: parts[1]).normalized
    } else {
      self = ImagePlatform(os: parts[0], architecture: parts[1], variant: parts.count == 3 ? parts[2] : nil).normalized
    }
  }

  private static func isPart(_ byte: UInt8) -> Bool { byte.isAlphanumeric || byte == 95 || byte == 45 || byte == 46 }
  private static let systems: Set = [
    "linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "dragonfly", "solaris", "plan9", "aix", "android",
    "illumos", "js", "wasip1", "unknown",
  ]
  private static let architectures: Set = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64",
    "s390x", "wasm",
  ]

  /// One spelling for each platform (containerd, platforms/database.go).
  public var normalized: ImagePlatform {
    var result = ImagePlatform(os: os.lowercased(), architecture: architecture.lowercased(), variant: nil)
    var variant = self.variant?.lowercased() ?? ""
    if result.os == "macos" { result.os = "darwin" }
    switch result.architecture {
    case "i386", "i486", "i586", "i686": result.architecture = "386"
    case "x86_64", "x86-64": result.architecture = "amd64"
    case "aarch64": result.architecture = "arm64"
    case "armhf": (result.architecture, variant) = ("arm", "v7")
    case "armel": (result.architecture, variant) = ("arm", "v6")
    case "armv7l": (result.architecture, variant) = ("arm", "v7")
    default: break
    }
    switch (result.architecture, variant) {
    case ("386", _), ("amd64", "v1"), ("arm64", "8"), ("arm64", "v8"): variant = ""
    case ("arm", ""), ("arm", "7"): variant = "v7"
    case ("arm", "5"), ("arm", "6"), ("arm", "8"): variant = "v" + variant
    default: break
    }
    result.variant = variant.isEmpty ? nil : variant
    return result
  }

  /// The platforms whose images run here, the best first (containerd, platforms/compare.go).
  public var runnable: [ImagePlatform] {
    let own = normalized
    func with(_ architecture: String, _ variants: [String?]) -> [ImagePlatform] {
      variants.map { ImagePlatform(os: own.os, architecture: architecture, variant: $0) }
    }
    func levels(from text: String?, down lowest: Int) -> [String] {
      guard let text, text.hasPrefix("v"), let number = Int(text.dropFirst()), number > lowest else { return [] }
      return stride(from: number - 1, through: lowest, by: -1).map { "v\($0)" }
    }
    switch own.architecture {
    case "amd64":
      return [own] + (own.variant == nil ? [] : with("amd64", levels(from: own.variant, down: 2) + [nil]))
        + with("386", [nil])
    case "arm": return [own] + with("arm", levels(from: own.variant, down: 5))
    case "arm64":
      return [own] + (own.variant == nil ? [] : with("arm64", [nil])) + with("arm", ["v8", "v7", "v6", "v5"])
    default: return [own]
    }
  }

  /// `linux/arm/v7`.
  public var description: String { "\(os)/\(architecture)" + (variant.map { "/\($0)" } ?? "") }
}
