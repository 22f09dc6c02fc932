// Command digest reaches the exported API of core/digest.
package main

import (
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

var (
	hash digest.SHA256
	mac  digest.HMAC
	key  digest.Key
	md5  digest.MD5
	long digest.SHA512
	old  [16]byte
	sum  [digest.Size]byte
	wide [digest.Size512]byte
	buf  [80]byte
)

func main() {
	board.Fill(buf[:])
	hash.Reset()
	hash.Write(buf[:])
	hash.Sum(&sum)
	board.Bytes(sum[:])

	mac.SetKey(buf[:board.Input()%uint32(len(buf))])
	mac.Begin()
	mac.Write(buf[:])
	mac.Sum(&sum)
	board.Bytes(sum[:])
	mac.Hash().Reset()

	key.Set(buf[:board.Input()%uint32(len(buf))], &hash)
	key.Begin(&hash)
	key.Sum(&hash, &sum)
	board.Bytes(sum[:])

	long.Reset()
	long.Write(buf[:])
	long.Sum(&wide)
	board.Bytes(wide[:])

	md5.Reset()
	md5.Write(buf[:])
	md5.Sum(&old)
	board.Bytes(old[:])

	board.Output(digest.CRC32(board.Input(), buf[:]))
	board.Flag(digest.Equal(sum[:], buf[:digest.Size]))
}
