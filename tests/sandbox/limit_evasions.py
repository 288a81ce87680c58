"""Programs that try to use more than their limits without being noticed: memory, CPU time, and the time of the next program."""

MMAP = """
import ctypes, os, time
l = ctypes.CDLL(None)
l.mmap.restype = ctypes.c_void_p
l.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
l.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
def keep(flags, descriptor, size=64 << 20):
    place = l.mmap(None, size, 3, flags, descriptor, 0)
    if place in (None, 2 ** 64 - 1): raise MemoryError
    ctypes.memset(place, 1, size)
    l.munmap(place, size - 4096)
"""

MEMORY = {
    "children_of_a_thread": "import os, threading, time\ndef g():\n for _ in range(12):\n  if os.fork() == 0:\n   x = bytearray(60 << 20)\n   time.sleep(100)\n"
    " time.sleep(100)\nthreading.Thread(target=g).start()\ntime.sleep(100)",
    "children_of_a_thread_of_a_child": "import os, threading, time\ndef g():\n for _ in range(12):\n  if os.fork() == 0:\n   x = bytearray(60 << 20)\n   time.sleep(100)\n"
    " time.sleep(100)\nif os.fork() == 0:\n threading.Thread(target=g).start()\ntime.sleep(100)",
    "processes_whose_main_thread_ended": "import ctypes, os, threading, time\ndef g():\n time.sleep(0.05)\n x = bytearray(100 << 20)\n time.sleep(100)\nfor _ in range(6):\n"
    " if os.fork() == 0:\n  threading.Thread(target=g).start()\n  ctypes.CDLL(None).syscall(SYS_EXIT, 0)\ntime.sleep(100)",
    "first_process_whose_main_thread_ended": "import ctypes, os, threading, time\ndef g():\n time.sleep(0.05)\n for _ in range(12):\n  if os.fork() == 0:\n   x = bytearray(60 << 20)\n"
    "   time.sleep(100)\n time.sleep(100)\nthreading.Thread(target=g).start()\nctypes.CDLL(None).syscall(SYS_EXIT, 0)",
    "orphans_in_new_sessions": "import os, time\nfor _ in range(12):\n if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n   x = bytearray(60 << 20)\n   time.sleep(100)\n  os._exit(0)\n"
    "time.sleep(100)",
    "shared_mappings_unmapped_in_part": MMAP + "for _ in range(12): keep(0x21, -1)\ntime.sleep(100)",
    "device_of_zeros_unmapped_in_part": MMAP + "f = os.open('/dev/zero', os.O_RDWR)\nfor _ in range(12): keep(1, f)\ntime.sleep(100)",
    "device_of_zeros_read_only": MMAP + "f = os.open('/dev/zero', os.O_RDONLY)\nx = l.mmap(None, 256 << 20, 1, 1, f, 0)\nassert x != 2 ** 64 - 1\n"
    "s = sum(ctypes.string_at(x + n, 1)[0] for n in range(0, 256 << 20, 4096))\ntime.sleep(100)",
    "shared_mappings_by_python": "import mmap\nx = [mmap.mmap(-1, 64 << 20) for _ in range(12)]\nfor m in x: m.write(b'x' * (64 << 20))\nimport time\ntime.sleep(100)",
}  # fmt: skip
"""Python programs that use about 720 MiB, under a limit of 512 MiB. `SYS_EXIT` is the system call that ends one thread."""

NODE_MEMORY = {
    "buffers": "const x = [];\nfor (let n = 0; n < 12; n++) x.push(Buffer.alloc(60 << 20, 1));\nsetTimeout(() => {}, 1e6);",
}  # fmt: skip

PAGE_TABLES = """
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
int main(void) {
    volatile char sum = 0;
    for (int n = 0; n < 400; n++) {
        char *x = mmap(0, 1L << 30, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (x == MAP_FAILED) return 1;
        for (long at = 0; at < 1L << 30; at += 1 << 21) sum += x[at];
    }
    pause();
}
"""
"""Reads one byte of each 2 MiB of 400 GiB: no page of data, but 800 MiB of page tables. For a runtime whose address space is
not limited."""

TIME = {
    "children_in_new_sessions": "import os, time\nfor _ in range(25):\n if os.fork() == 0:\n  os.setsid()\n  while True: pass\ntime.sleep(100)",
    "children_of_children": "import os, time\nfor _ in range(5):\n if os.fork() == 0:\n  for _ in range(4):\n   if os.fork() == 0:\n    os.setsid()\n    while True: pass\n  time.sleep(100)\ntime.sleep(100)",
    "threads_that_yield": "import os, threading\ndef g():\n while True: os.sched_yield()\nfor _ in range(20): threading.Thread(target=g).start()",
    "idle_children": "import os, time\nfor _ in range(25):\n if os.fork() == 0:\n  os.nice(19)\n  while True: pass\ntime.sleep(100)",
    "children_one_after_the_other": "import os, time\nwhile True:\n pid = os.fork()\n if pid == 0:\n  end = time.process_time() + 0.3\n  while time.process_time() < end: pass\n  os._exit(0)\n os.waitpid(pid, 0)",
    "children_nobody_waits_for": "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True:\n if os.fork() == 0:\n  end = time.process_time() + 0.3\n"
    "  while time.process_time() < end: pass\n  os._exit(0)\n time.sleep(0.3)",
}  # fmt: skip
"""Programs that go on until they are killed."""

SCHEDULING = {
    "one_core": "os.sched_setaffinity(0, {0})",
    "idle_class": "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))",
    "batch_class": "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))",
    "parameters": "os.sched_setparam(0, os.sched_param(0))",
}
