import EngineCLI
import Glibc

// All that is written is written by now, so there is nothing that exit(3) would have to do before.
_exit(EngineCLI.main(Array(CommandLine.arguments.dropFirst())))
