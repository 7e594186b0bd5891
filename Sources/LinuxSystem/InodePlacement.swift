import CLinux
import Glibc

/// Where a file system puts new directories, and with them what they hold.
public enum InodePlacement {
  /// `FS_IOC_GETFLAGS` and `FS_IOC_SETFLAGS` of linux/fs.h: `_IOR('f', 1, long)`, `_IOW('f', 2, long)`.
  private static let getFlags: UInt = 0x8008_6601
  private static let setFlags: UInt = 0x4008_6602
  /// `FS_TOPDIR_FL` of linux/fs.h, `T` of chattr(1).
  private static let isTop: UInt32 = 0x0002_0000

  /// Tells the file system that what the directories in `path` hold is not related (chattr(1), `T`). ext4 then gives each
  /// a group of blocks with much free room, rather than the group of its parent. There, every new file would search past
  /// all inodes that were freed in the last minute, one by one: where containers and images come and go, that took a third of
  /// the engine's time, and a pull after a removal five times as long.
  ///
  /// A file system that knows no such flag does as it likes.
  public static func spread(_ path: String) {
    guard let directory = try? Files.open(path, O_RDONLY | O_DIRECTORY) else { return }
    var flags: UInt32 = 0
    guard linux_ioctl_pointer(directory.number, getFlags, &flags) == 0, flags & isTop == 0 else { return }
    flags |= isTop
    _ = linux_ioctl_pointer(directory.number, setFlags, &flags)
    withExtendedLifetime(directory) {}
  }
}
