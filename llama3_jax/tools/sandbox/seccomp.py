"""The system calls that a program may make: all others fail (seccomp, a list of what is
allowed).

Whatever is not named here is refused: new programs and processes, sockets, signals to
others, namespaces, mounts, keys, io_uring, bpf, ptrace. A number of a call is a fact of
the kernel's headers (asm/unistd_64.h and asm-generic/unistd.h); '-' where a machine
does not have the call.
"""

import errno
import platform
import struct

MACHINES = ('x86_64', 'aarch64')  # columns of the numbers below
AUDIT = {'x86_64': 0xC000003E, 'aarch64': 0xC00000B7}

READ = """
read 0 63; write 1 64; readv 19 65; writev 20 66; pread64 17 67; pwrite64 18 68;
preadv 295 69; pwritev 296 70; preadv2 327 286; pwritev2 328 287; lseek 8 62;
close 3 57; close_range 436 436; dup 32 23; dup2 33 -; dup3 292 24; pipe 22 -;
pipe2 293 59; poll 7 -; ppoll 271 73; select 23 -; pselect6 270 72; epoll_create 213 -;
epoll_create1 291 20; epoll_ctl 233 21; epoll_wait 232 -; epoll_pwait 281 22;
epoll_pwait2 441 441; eventfd2 290 19; flock 73 32; fsync 74 82; fdatasync 75 83;
fadvise64 221 223; open 2 -; openat 257 56; stat 4 -; fstat 5 80; lstat 6 -;
newfstatat 262 79; statx 332 291; statfs 137 43; fstatfs 138 44; access 21 -;
faccessat 269 48; faccessat2 439 439; readlink 89 -; readlinkat 267 78;
getdents64 217 61; getcwd 79 17; chdir 80 49; fchdir 81 50; umask 95 166;
sendfile 40 71; copy_file_range 326 285; mmap 9 222; munmap 11 215; mprotect 10 226;
mremap 25 216; madvise 28 233; msync 26 227; brk 12 214; rt_sigaction 13 134;
rt_sigprocmask 14 135; rt_sigreturn 15 139; rt_sigpending 127 136;
rt_sigsuspend 130 133; rt_sigtimedwait 128 137; sigaltstack 131 132; pause 34 -;
alarm 37 -; getitimer 36 102; setitimer 38 103; nanosleep 35 101;
clock_nanosleep 230 115; clock_gettime 228 113; clock_getres 229 114;
gettimeofday 96 169; time 201 -; times 100 153; getrusage 98 165; sysinfo 99 179;
uname 63 160; getpid 39 172; gettid 186 178; getppid 110 173; getpgrp 111 -;
getpgid 121 155; getsid 124 156; getuid 102 174; geteuid 107 175; getgid 104 176;
getegid 108 177; getresuid 118 148; getresgid 120 150; getgroups 115 158;
getrlimit 97 163; setrlimit 160 164; getpriority 140 141; sched_yield 24 124;
sched_getaffinity 204 123; sched_getscheduler 145 120; sched_getparam 143 121;
sched_get_priority_max 146 125; sched_get_priority_min 147 126; getcpu 309 168;
futex 202 98; set_robust_list 273 99; set_tid_address 218 96; rseq 334 293;
membarrier 324 283; arch_prctl 158 -; restart_syscall 219 128; exit 60 93;
exit_group 231 94; wait4 61 260; waitid 247 95; getrandom 318 278; recvfrom 45 207;
shutdown 48 210; getsockname 51 204; getpeername 52 205; getsockopt 55 209
"""
# Of files in the scratch folder; nothing else can be written to.
WRITE = """
creat 85 -; rename 82 -; renameat 264 38; renameat2 316 276; mkdir 83 -; mkdirat 258 34;
rmdir 84 -; link 86 -; linkat 265 37; unlink 87 -; unlinkat 263 35; symlink 88 -;
symlinkat 266 36; truncate 76 45; ftruncate 77 46; fallocate 285 47; chmod 90 -;
fchmod 91 52; fchmodat 268 53; fchmodat2 452 452; utime 132 -; utimes 235 -;
utimensat 280 88; futimesat 261 -
"""
# Whose arguments decide, or that fail with an error that libraries expect.
OTHER = """
clone 56 220; clone3 435 435; ioctl 16 29; fcntl 72 25; socketpair 53 199; kill 62 129;
tgkill 234 131; prlimit64 302 261; prctl 157 167; sendto 44 206; getxattr 191 8;
lgetxattr 192 9; fgetxattr 193 10; listxattr 194 11; llistxattr 195 12;
flistxattr 196 13; setxattr 188 5; lsetxattr 189 6; fsetxattr 190 7
"""

# Instructions of classic BPF, as in linux/bpf_common.h.
LOAD, EQUAL, AT_LEAST, SET, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCH, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

CLONE_THREAD, CLONE_VM = 0x10000, 0x100
# New namespaces (mount, cgroup, uts, ipc, user, pid, net, time), vfork, ptrace.
CLONE_MORE = 0x00020000 | 0x7E000000 | 0x80 | 0x4000 | 0x2000
IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, size, FIO*
# F_SETOWN, F_SETOWN_EX, F_SETSIG, F_SETLEASE, F_NOTIFY: they send signals. A larger
# pipe is memory that no limit counts.
FCNTLS = (8, 15, 10, 1024, 1026, 1031)
AF_UNIX, SOCK_STREAM, SOCK_TYPE = 1, 1, 0xF
PR_SET_NAME = 15
X32 = 0x40000000


def numbers(table: str, machine: str) -> dict[str, int]:
  """Name -> number of the calls of a table that a machine has."""
  column, found = 1 + MACHINES.index(machine), {}
  for entry in table.split(';'):
    words = entry.split()
    if words[column] != '-':
      found[words[0]] = int(words[column])
  return found


def _code(op, value, yes=0, no=0):
  return struct.pack('<HBBI', op, yes, no, value)


def _error(number):
  return _code(RETURN, ERROR | number)


def _argument(i):
  """Loads the lower half of argument `i`: all that the kernel reads of an int."""
  return _code(LOAD, ARGUMENTS + 8 * i)


def _if_one_of(values, then, otherwise):
  """Returns `then` where the loaded number is one of `values`."""
  tests = b''.join(_code(EQUAL, v, 0, 1) + then for v in values)
  return tests + otherwise


def _rules(pid, threads):
  """Name -> the code that decides on a call, which ends in a return."""
  allow, refuse = _code(RETURN, ALLOW), _error(errno.EPERM)
  no_attributes = _error(errno.EOPNOTSUPP)
  both = CLONE_THREAD | CLONE_VM
  clone = refuse
  if threads:
    clone = _argument(0) + _code(SET, CLONE_MORE, 0, 1) + refuse
    clone += _code(AND, both) + _if_one_of([both], allow, refuse)
  to_itself = _argument(0) + _if_one_of([pid], allow, refuse)
  pair = _argument(1) + _code(AND, SOCK_TYPE) + _code(EQUAL, SOCK_STREAM, 1, 0) + refuse
  nowhere = _argument(4) + _code(EQUAL, 0, 1, 0) + refuse
  nowhere += _code(LOAD, ARGUMENTS + 8 * 4 + 4) + _if_one_of([0], allow, refuse)
  rules = {
    'clone': clone,
    # The library then uses clone, whose flags can be read here.
    'clone3': _error(errno.ENOSYS),
    'ioctl': _argument(1) + _if_one_of(IOCTLS, allow, _error(errno.ENOTTY)),
    'fcntl': _argument(1) + _if_one_of(FCNTLS, refuse, allow),
    'socketpair': pair + _argument(0) + _if_one_of([AF_UNIX], allow, refuse),
    'sendto': nowhere,  # to the other end of a pair, not to an address
    'kill': to_itself,
    'tgkill': to_itself,
    'prlimit64': _argument(0) + _if_one_of([0, pid], allow, refuse),
    'prctl': _argument(0) + _if_one_of([PR_SET_NAME], allow, refuse),
  }
  return rules | {n: no_attributes for n in numbers(OTHER, 'x86_64') if 'xattr' in n}


def program(pid: int, threads: bool, writes: bool, machine: str = '') -> bytes:
  """The filter of process `pid` as instructions of BPF, 8 bytes each.

  threads: it may start threads; writes: it may change files, where other rules let it.
  Raises KeyError on a machine that is not one of MACHINES.
  """
  machine = machine or platform.machine()
  code = _code(LOAD, ARCH) + _code(EQUAL, AUDIT[machine], 1, 0) + _code(RETURN, KILL)
  code += _code(LOAD, NUMBER)
  if machine == 'x86_64':  # the same calls by other numbers
    code += _code(AT_LEAST, X32, 0, 1) + _code(RETURN, KILL)
  plain = numbers(READ, machine) | (numbers(WRITE, machine) if writes else {})
  for number in plain.values():
    code += _code(EQUAL, number, 0, 1) + _code(RETURN, ALLOW)
  rules = _rules(pid, threads)
  for name, number in numbers(OTHER, machine).items():
    code += _code(EQUAL, number, 0, len(rules[name]) // 8) + rules[name]
  return code + _error(errno.EPERM)
