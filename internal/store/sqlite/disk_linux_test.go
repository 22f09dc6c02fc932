package sqlite

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// A disk that can lose its power or be full, below SQLite: a VFS of SQLite's own
// (sqlite.org/vfs.html) that hands everything on to the system's and keeps a log
// of what was written and what was flushed. From any place of the log it makes a
// folder as a power loss might leave it:
//
//   - what a file was flushed with is there;
//   - of each write since, any part of its sectors is there, whatever came later;
//   - a file that grew may hold anything where nothing was written;
//   - a name that was made or removed since the folder was flushed is there or not.
//
// The shared memory file is not among them: SQLite makes it anew at a start.

const (
	diskName   = "testdisk"
	sectorSize = 512
)

type diskKind int

const (
	diskCreate diskKind = iota
	diskWrite
	diskTruncate
	diskSync    // of a file
	diskSyncDir // of the folder
	diskRemove
	diskMark // the test's own
)

type diskOp struct {
	kind  diskKind
	inode int
	name  string
	off   int64 // or the size, or the mark
	data  []byte
}

// disk is the log of one folder.
type disk struct {
	dir string

	mu     sync.Mutex
	log    []diskOp
	inodes int
	names  map[string]int
	fresh  map[int]bool // not flushed yet, and SQLite flushes the folder with them
	size   map[int]int64
	quota  int64 // bytes of all files; 0: no limit
}

func (d *disk) add(op diskOp) { d.log = append(d.log, op) }

// mark notes something, in the order of what happens on the disk.
func (d *disk) mark(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.add(diskOp{kind: diskMark, off: int64(n)})
}

func (d *disk) setQuota(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.quota = bytes
}

func (d *disk) used() (sum int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.total()
}

func (d *disk) total() (sum int64) {
	for _, i := range d.names {
		sum += d.size[i]
	}
	return sum
}

func (d *disk) opened(name string, flags int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.names[name]; ok {
		return
	}
	d.inodes++
	d.names[name] = d.inodes
	// os_unix.c, UNIXFILE_DIRSYNC: the first flush of a new journal or log flushes its folder
	// too. That of a database does not.
	d.fresh[d.inodes] = flags&(lib.SQLITE_OPEN_MAIN_JOURNAL|lib.SQLITE_OPEN_WAL|lib.SQLITE_OPEN_SUPER_JOURNAL) != 0
	d.add(diskOp{kind: diskCreate, inode: d.inodes, name: name})
}

func (d *disk) write(name string, off int64, data []byte) (full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.names[name]
	grown := max(d.size[i], off+int64(len(data)))
	if d.quota > 0 && grown > d.size[i] && d.total()+grown-d.size[i] > d.quota {
		return true
	}
	d.size[i] = grown
	d.add(diskOp{kind: diskWrite, inode: i, off: off, data: data})
	return false
}

func (d *disk) truncated(name string, size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.size[d.names[name]] = size
	d.add(diskOp{kind: diskTruncate, inode: d.names[name], off: size})
}

func (d *disk) synced(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.names[name]
	d.add(diskOp{kind: diskSync, inode: i})
	if d.fresh[i] {
		d.fresh[i] = false
		d.add(diskOp{kind: diskSyncDir})
	}
}

func (d *disk) removed(name string, syncDir bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.names, name)
	d.add(diskOp{kind: diskRemove, name: name})
	if syncDir {
		d.add(diskOp{kind: diskSyncDir})
	}
}

// powerLoss writes into dir what may be left when the power goes after n steps,
// and answers the marks before.
func (d *disk) powerLoss(t *testing.T, dir string, n int, rnd *rand.Rand) (marks map[int]bool) {
	t.Helper()
	flushed := map[int][]byte{}
	waiting := map[int][]diskOp{}
	names := map[string]int{}
	var entries []diskOp // of the folder, not flushed
	marks = map[int]bool{}
	rename := func(op diskOp) {
		if op.kind == diskCreate {
			names[op.name] = op.inode
		} else {
			delete(names, op.name)
		}
	}
	for _, op := range d.log[:n] {
		switch op.kind {
		case diskCreate, diskRemove:
			entries = append(entries, op)
		case diskSyncDir:
			for _, e := range entries {
				rename(e)
			}
			entries = nil
		case diskWrite, diskTruncate:
			waiting[op.inode] = append(waiting[op.inode], op)
		case diskSync:
			for _, w := range waiting[op.inode] {
				flushed[op.inode] = w.apply(flushed[op.inode], nil)
			}
			waiting[op.inode] = nil
		case diskMark:
			marks[int(op.off)] = true
		}
	}
	for _, e := range entries {
		if rnd.IntN(2) == 0 {
			rename(e)
		}
	}
	for name, i := range names {
		content := bytes.Clone(flushed[i])
		keep := rnd.IntN(4) // none, all, a beginning, any
		stop := rnd.IntN(len(waiting[i]) + 1)
		for k, w := range waiting[i] {
			switch {
			case keep == 0 || keep == 2 && k > stop:
			case keep == 1 || keep == 2 && k < stop:
				content = w.apply(content, nil)
			case keep == 2 || rnd.IntN(2) == 0: // the last of a beginning is torn
				content = w.apply(content, rnd)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return marks
}

// apply is the file after the step; with rnd, after a part of it.
func (op diskOp) apply(file []byte, rnd *rand.Rand) []byte {
	if op.kind == diskTruncate {
		if int64(len(file)) > op.off {
			return file[:op.off]
		}
		return append(file, make([]byte, op.off-int64(len(file)))...)
	}
	end := op.off + int64(len(op.data))
	if old := int64(len(file)); old < end {
		file = append(file, make([]byte, end-old)...)
		for i := old; rnd != nil && i < end; i++ {
			file[i] = byte(rnd.Uint32())
		}
	}
	if rnd == nil {
		copy(file[op.off:], op.data)
		return file
	}
	for at := op.off; at < end; {
		next := min((at/sectorSize+1)*sectorSize, end)
		if rnd.IntN(2) == 0 {
			copy(file[at:next], op.data[at-op.off:])
		}
		at = next
	}
	return file
}

// What SQLite calls.
var (
	realVFS    uintptr
	realOpen   func(tls *libc.TLS, vfs, path, file uintptr, flags int32, out uintptr) int32
	realDelete func(tls *libc.TLS, vfs, path uintptr, syncDir int32) int32

	disks     sync.Map // by folder
	diskFiles sync.Map // by address: openFile
	diskKinds sync.Map // by address of the system's methods: *fileKind
	diskOnce  sync.Once
)

// fileKind is one of the system's kinds of files: those with and those without locks.
type fileKind struct {
	methods  uintptr // the system's, with ours in place of four
	write    func(tls *libc.TLS, file, p uintptr, n int32, off int64) int32
	truncate func(tls *libc.TLS, file uintptr, size int64) int32
	sync     func(tls *libc.TLS, file uintptr, flags int32) int32
	close    func(tls *libc.TLS, file uintptr) int32
}

func kindOf(methods uintptr) *fileKind {
	if k, ok := diskKinds.Load(methods); ok {
		return k.(*fileKind)
	}
	m := *at[lib.Tsqlite3_io_methods](methods)
	k := &fileKind{
		write:    function[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](m.FxWrite),
		truncate: function[func(*libc.TLS, uintptr, int64) int32](m.FxTruncate),
		sync:     function[func(*libc.TLS, uintptr, int32) int32](m.FxSync),
		close:    function[func(*libc.TLS, uintptr) int32](m.FxClose),
	}
	m.FxWrite, m.FxTruncate, m.FxSync, m.FxClose = pointer(diskWriteAt), pointer(diskTruncateTo), pointer(diskFlush), pointer(diskClose)
	k.methods = keep(m)
	kept, _ := diskKinds.LoadOrStore(methods, k)
	return kept.(*fileKind)
}

type openFile struct {
	*fileKind
	d    *disk
	name string
}

// at is what lies at an address of SQLite's memory.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// keep is the address of a copy in SQLite's memory, for ever.
func keep[T any](v T) uintptr {
	tls := libc.NewTLS()
	defer tls.Close()
	p := libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(v)))
	*at[T](p) = v
	return p
}

// pointer is a function as SQLite's C was translated to hold it, and function
// the way back.
func pointer(f any) uintptr { return (*[2]uintptr)(unsafe.Pointer(&f))[1] }

func function[F any](p uintptr) F {
	holder := &struct{ p uintptr }{p}
	return *(*F)(unsafe.Pointer(holder))
}

// newDisk is the disk of a folder; what is opened there with the VFS is logged.
func newDisk(t *testing.T, dir string) *disk {
	t.Helper()
	diskOnce.Do(func() {
		tls := libc.NewTLS()
		defer tls.Close()
		realVFS = lib.Xsqlite3_vfs_find(tls, 0)
		v := *at[lib.Tsqlite3_vfs](realVFS)
		realOpen = function[func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32](v.FxOpen)
		realDelete = function[func(*libc.TLS, uintptr, uintptr, int32) int32](v.FxDelete)
		v.FzName = keep([len(diskName) + 1]byte([]byte(diskName + "\x00")))
		v.FxOpen, v.FxDelete = pointer(diskOpen), pointer(diskDelete)
		if rc := lib.Xsqlite3_vfs_register(tls, keep(v), 0); rc != 0 {
			panic(fmt.Sprint("register the VFS: ", rc))
		}
	})
	d := &disk{dir: dir, names: map[string]int{}, fresh: map[int]bool{}, size: map[int]int64{}}
	disks.Store(dir, d)
	t.Cleanup(func() { disks.Delete(dir) })
	return d
}

func diskOf(path uintptr) (*disk, string) {
	if path == 0 {
		return nil, "" // a temporary file
	}
	name := libc.GoString(path)
	d, ok := disks.Load(filepath.Dir(name))
	if !ok {
		return nil, ""
	}
	return d.(*disk), filepath.Base(name)
}

func diskOpen(tls *libc.TLS, _, path, file uintptr, flags int32, out uintptr) int32 {
	rc := realOpen(tls, realVFS, path, file, flags, out)
	d, name := diskOf(path)
	if rc != 0 || d == nil {
		return rc
	}
	f := at[lib.Tsqlite3_file](file)
	k := kindOf(f.FpMethods)
	f.FpMethods = k.methods
	diskFiles.Store(file, openFile{k, d, name})
	d.opened(name, flags)
	return 0
}

func fileOf(file uintptr) openFile {
	f, ok := diskFiles.Load(file)
	if !ok {
		panic("a file that was not opened here")
	}
	return f.(openFile)
}

func diskWriteAt(tls *libc.TLS, file, p uintptr, n int32, off int64) int32 {
	f := fileOf(file)
	if f.d.write(f.name, off, slices.Clone(unsafe.Slice(at[byte](p), n))) {
		return lib.SQLITE_FULL
	}
	return f.write(tls, file, p, n, off)
}

func diskTruncateTo(tls *libc.TLS, file uintptr, size int64) int32 {
	f := fileOf(file)
	rc := f.truncate(tls, file, size)
	if rc == 0 {
		f.d.truncated(f.name, size)
	}
	return rc
}

func diskFlush(tls *libc.TLS, file uintptr, flags int32) int32 {
	f := fileOf(file)
	rc := f.sync(tls, file, flags)
	if rc == 0 {
		f.d.synced(f.name)
	}
	return rc
}

func diskClose(tls *libc.TLS, file uintptr) int32 {
	f := fileOf(file)
	diskFiles.Delete(file)
	return f.close(tls, file)
}

func diskDelete(tls *libc.TLS, _, path uintptr, syncDir int32) int32 {
	rc := realDelete(tls, realVFS, path, syncDir)
	if d, name := diskOf(path); rc == 0 && d != nil {
		d.removed(name, syncDir != 0)
	}
	return rc
}
