/// Which start of the machine this is.
public enum BootIdentity {
  /// The random text that the kernel made when it started (random(4), `/proc/sys/kernel/random/boot_id`): what was
  /// written under another one has been through a shutdown or a power failure.
  public static func read() throws(SystemCallError) -> String {
    let text = try Files.readText("/proc/sys/kernel/random/boot_id", limit: 128)
    return String(text.prefix { $0 != "\n" })
  }
}
