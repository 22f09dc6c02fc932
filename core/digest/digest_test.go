package digest

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash/crc32"
	"math/rand"
	"testing"
	"unsafe"

	"github.com/runnel-fota/runnel/core/internal/chiptest"
)

func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(SHA256{}); n > 112 {
		t.Errorf("SHA256 takes %d bytes, at most 112 are allowed (docs/design/flash.md)", n)
	}
	if n := unsafe.Sizeof(Key{}); n > 64 {
		t.Errorf("Key takes %d bytes, at most 64 are allowed", n)
	}
	if n := unsafe.Sizeof(SHA512{}); n > 200 {
		t.Errorf("SHA512 takes %d bytes, at most 200 are allowed", n)
	}
	t.Logf("SHA256 %d bytes, HMAC %d bytes, Key %d bytes", unsafe.Sizeof(SHA256{}), unsafe.Sizeof(HMAC{}), unsafe.Sizeof(Key{}))
}

func TestVectors(t *testing.T) {
	var s SHA256
	var d [32]byte
	s.Reset()
	s.Write([]byte("abc"))
	s.Sum(&d)
	if hex.EncodeToString(d[:]) != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" {
		t.Error("SHA-256 of abc (FIPS 180-4) is wrong")
	}
	var s5 SHA512
	var d5 [Size512]byte
	s5.Reset()
	s5.Write([]byte("abc"))
	s5.Sum(&d5)
	if hex.EncodeToString(d5[:]) != "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f" {
		t.Error("SHA-512 of abc (FIPS 180-4) is wrong")
	}
	var m HMAC
	m.SetKey([]byte("Jefe"))
	m.Write([]byte("what do ya want for nothing?"))
	m.Sum(&d)
	if hex.EncodeToString(d[:]) != "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" {
		t.Error("HMAC of RFC 4231 case 2 is wrong")
	}
	if CRC32(0, []byte("123456789")) != 0xcbf43926 {
		t.Error("CRC-32 check value is wrong")
	}
}

// check compares everything with the standard library, written in two pieces.
func check(t *testing.T, key, data []byte, cut int) {
	t.Helper()
	var got [32]byte
	var s SHA256
	s.Reset()
	s.Write(data[:cut])
	s.Sum(&got) // must not disturb what follows
	s.Write(data[cut:])
	s.Sum(&got)
	if got != sha256.Sum256(data) {
		t.Fatalf("SHA-256 of %d bytes, cut at %d", len(data), cut)
	}
	var m HMAC
	m.SetKey(key)
	for i := 0; i < 2; i++ {
		m.Begin()
		m.Write(data[:cut])
		m.Write(data[cut:])
		m.Sum(&got)
		w := hmac.New(sha256.New, key)
		w.Write(data)
		if !bytes.Equal(got[:], w.Sum(nil)) {
			t.Fatalf("HMAC of %d bytes, key of %d", len(data), len(key))
		}
	}
	var s5 SHA512
	var d5 [Size512]byte
	s5.Reset()
	s5.Write(data[:cut])
	s5.Write(data[cut:])
	s5.Sum(&d5)
	if d5 != sha512.Sum512(data) {
		t.Fatalf("SHA-512 of %d bytes, cut at %d", len(data), cut)
	}
	var m5 MD5
	var sum [16]byte
	m5.Reset()
	m5.Write(data[:cut])
	m5.Write(data[cut:])
	m5.Sum(&sum)
	if sum != md5.Sum(data) {
		t.Fatalf("MD5 of %d bytes", len(data))
	}
	if CRC32(CRC32(0, data[:cut]), data[cut:]) != crc32.ChecksumIEEE(data) {
		t.Fatalf("CRC-32 of %d bytes", len(data))
	}
}

func TestAgainstStandardLibrary(t *testing.T) {
	const seed = 1
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	for n := 0; n < 300; n++ { // every length around one and two blocks of each hash
		data, key := make([]byte, n), make([]byte, n%150)
		r.Read(data)
		r.Read(key)
		check(t, key, data, r.Intn(n+1))
	}
}

func TestNoAllocation(t *testing.T) {
	data := make([]byte, 1024)
	var m HMAC
	var out [32]byte
	m.SetKey(data[:32])
	var s5 SHA512
	var d5 [Size512]byte
	if n := chiptest.Allocs(10, func() {
		m.Begin()
		m.Write(data)
		m.Sum(&out)
		CRC32(0, data)
		s5.Reset()
		s5.Write(data)
		s5.Sum(&d5)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestKeysShareOneHash: two keys and other hashing take turns on one running hash.
func TestKeysShareOneHash(t *testing.T) {
	var run SHA256
	var a, b Key
	var got [32]byte
	long := bytes.Repeat([]byte{7}, 100)
	a.Set([]byte("Jefe"), &run)
	run.Reset()
	run.Write(long) // unfinished: lost
	b.Set(long, &run)
	for i := 0; i < 3; i++ {
		for _, c := range []struct {
			k   *Key
			key []byte
		}{{&a, []byte("Jefe")}, {&b, long}} {
			c.k.Begin(&run)
			run.Write(long[:70])
			c.k.Sum(&run, &got)
			w := hmac.New(sha256.New, c.key)
			w.Write(long[:70])
			if !bytes.Equal(got[:], w.Sum(nil)) {
				t.Fatalf("turn %d: HMAC is wrong", i)
			}
		}
	}
}

func TestEqual(t *testing.T) {
	if !Equal([]byte{1, 2}, []byte{1, 2}) || Equal([]byte{1, 2}, []byte{1, 3}) || Equal([]byte{1}, []byte{1, 2}) {
		t.Error("Equal is wrong")
	}
}

func FuzzDigests(f *testing.F) {
	f.Add([]byte("key"), []byte("data"), uint8(2))
	f.Fuzz(func(t *testing.T, key, data []byte, cut uint8) {
		check(t, key, data, min(int(cut), len(data)))
	})
}

func BenchmarkSHA256(b *testing.B) {
	data := make([]byte, 4096)
	var s SHA256
	s.Reset()
	b.SetBytes(int64(len(data)))
	for range b.N {
		s.Write(data)
	}
}
