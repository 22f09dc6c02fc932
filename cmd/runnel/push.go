package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/term"
	"github.com/runnel-fota/runnel/release"
)

func newPushCmd() *cobra.Command {
	r := &remote{}
	var product, version string
	var chunkSize int
	var say fleet.Publication
	cmd := &cobra.Command{
		Use:   "push FILE...",
		Short: "Check a release file or an image, and publish it",
		Long: `Publishes a release file, which 'runnel sign' makes: it says its product and version
itself. The server checks signatures by its key list; a key list in the file that
follows that one is taken too. A server that holds none yet takes the file's, and
you are told whose roots it believes from then on ('runnel keys publish --root' is
for who wants them compared first). Several release files are published one after
the other, once all of them were found good: the builds of a release that is linked
once a slot belong into one call. A device gets the one for the slot that it writes to.

Any other file is an image, and published without a signature: for products that
are not signed. Magic, chip, segments, checksum and appended SHA-256 are checked as
the bootloader would. A bad file is refused with what is wrong and where, and leaves
nothing behind. The same file again is no error. Where the upload takes long, a
terminal shows how far it is.

A draft is checked and stored, and offered to nobody until 'runnel releases publish'. What
is in a channel is given out by rollouts alone ('runnel rollout create --channel').

--json prints {"release":{...},"created":bool,"warning"}, for each file; the release is
as 'runnel releases --json' shows it.`,
		Example: "  runnel push pump-1.2.0.runnel\n  runnel push pump-1.4.0-slot0.runnel pump-1.4.0-slot1.runnel\n  runnel push build/firmware.bin --product acme/pump --version 1.2.0\n  runnel push firmware.bin --product acme/pump --version 1.2.1 --chunk-size 4096 --json",
		Args: func(cmd *cobra.Command, args []string) error {
			return exactArgs("FILE")(cmd, args[:min(len(args), 1)])
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args[1:] {
				if _, err := os.Stat(name); err != nil {
					return err
				}
				if !isReleaseFile(name) || !isReleaseFile(args[0]) {
					return usagef("several files are pushed at once where all are release files")
				}
			}
			if err := fleet.ValidateWords(say.Channel, say.Notes); err != nil {
				return asUsage(err)
			}
			if isReleaseFile(args[0]) {
				for _, name := range []string{"product", "version", "chunk-size"} {
					if cmd.Flags().Changed(name) {
						return usagef("--%s is for images: %s is a release file, which says it itself", name, args[0])
					}
				}
				return pushReleases(cmd, r, args, say)
			}
			for _, name := range []string{"product", "version"} {
				if !cmd.Flags().Changed(name) {
					return usagef("--%s is missing", name).withHint("see 'runnel push --help'")
				}
			}
			var warning string
			var err error
			if cmd.Flags().Changed("chunk-size") {
				warning, err = fleet.CheckChunkSize(chunkSize)
			}
			if err = errors.Join(fleet.ValidateProduct(product), fleet.ValidateVersion(version), err); err != nil {
				return usagef("%v", err)
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			digest, size, err := checkImage(args[0], f)
			if err != nil {
				return err
			}
			p, err := sendFile(cmd, r, f, size, func(up io.Reader) (client.Published, error) {
				return c.Publish(cmd.Context(), product, version, chunkSize, digest, up, size, say)
			})
			if err != nil {
				return err
			}
			if warning == "" {
				warning = p.Warning
			}
			warn(cmd, warning)
			return showPublished(cmd, r, p)
		},
	}
	cmd.Flags().StringVar(&product, "product", "", "the `product` it is for: name or vendor/name")
	cmd.Flags().StringVar(&version, "version", "", "the `version` that people call it")
	cmd.Flags().IntVar(&chunkSize, "chunk-size", 0, "`bytes` in a chunk, 256 to 16384 (default: the product's first of 'products set --chunk-sizes', else 1024)")
	cmd.Flags().BoolVar(&say.Draft, "draft", false, "offer it to nobody until it is published")
	cmd.Flags().StringVar(&say.Channel, "channel", "", "its `channel`, like beta: it is given out by rollouts alone")
	cmd.Flags().StringVar(&say.Notes, "notes", "", "`text` for people, 2048 bytes at most")
	r.flags(cmd)
	return cmd
}

// isReleaseFile looks at the beginning of a file. One that can't be read is none:
// who reads it next says why.
func isReleaseFile(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, release.FileHead)
	n, _ := io.ReadFull(f, head)
	return release.IsFile(head[:n])
}

// sendFile sends a file from its beginning, and shows a person how far it is.
func sendFile(cmd *cobra.Command, r *remote, f io.ReadSeeker, size int64, send func(io.Reader) (client.Published, error)) (client.Published, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return client.Published{}, err
	}
	up := &upload{r: f, total: size}
	if !r.json {
		up.bar = newProgress(cmd.ErrOrStderr(), "uploading")
	}
	defer up.watch()()
	return send(up)
}

func showPublished(cmd *cobra.Command, r *remote, p client.Published) error {
	out := cmd.OutOrStdout()
	if r.json {
		return printJSON(out, p)
	}
	word := "published"
	if !p.Created {
		word = "already published:"
	}
	l := p.Release
	if l.State == string(fleet.ReleaseDraft) {
		word = "drafted"
		if !p.Created {
			word = "already a draft:"
		}
	}
	name := l.Version
	if l.Slot != nil {
		name += fmt.Sprintf(" for slot %d", *l.Slot)
	}
	fmt.Fprintf(out, "%s %s %s (release %d): %s bytes, %s chunks of %s\n", word, l.Product, name, l.ID,
		term.Number(l.Size), term.Number(l.Chunks), term.Number(l.ChunkSize))
	if l.Signed {
		fmt.Fprintf(out, "signed: epoch %d, sequence %d, security version %d, manifest %s\n", l.Epoch, l.Sequence, l.SecurityVersion, l.ManifestDigest)
	}
	fmt.Fprintf(out, "sha256 %s\n", l.Digest)
	if l.State == string(fleet.ReleaseDraft) {
		fmt.Fprintf(out, "nobody is offered it: 'runnel releases publish %d' publishes it\n", l.ID)
	}
	return nil
}

// upload is an image on its way; where a person looks on and it takes long, a
// progress line is drawn on standard error.
type upload struct {
	r     io.Reader
	total int64
	done  atomic.Int64
	bar   *term.Progress
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	u.done.Add(int64(n))
	return n, err
}

const uploadLook = 100 * time.Millisecond

// watch draws by the clock: a connection that hangs is seen too. stop ends it.
func (u *upload) watch() (stop func()) {
	if u.bar == nil {
		return func() {}
	}
	ended, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		t := time.NewTicker(uploadLook)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				u.bar.Set(u.done.Load(), u.total)
			case <-ended:
				return
			}
		}
	}()
	return func() {
		close(ended)
		<-gone
		u.bar.End()
	}
}

// checkImage checks as the bootloader would and answers digest and size of the file.
func checkImage(name string, f io.Reader) (digest string, size int64, err error) {
	var check esp32.ImageCheck
	check.Begin(esp32.AnyChip, maxImage)
	sum := sha256.New()
	buf := make([]byte, 64<<10)
	bad := func(err error) error {
		return &fleet.Error{Code: fleet.CodeInvalid, Message: fmt.Sprintf("%s: %v, at offset %d", name, err, check.Offset()),
			Hint: "'runnel inspect' shows what the file holds; push the .bin that the build made for the app"}
	}
	for {
		n, readErr := f.Read(buf)
		sum.Write(buf[:n])
		if size += int64(n); size > maxImage {
			return "", 0, fleet.Errorf(fleet.CodeTooLarge, "%s is larger than %d bytes", name, maxImage)
		}
		if err := check.Write(buf[:n]); err != nil {
			return "", 0, bad(err)
		}
		if readErr == io.EOF {
			break
		}
		if readErr != nil {
			return "", 0, readErr
		}
	}
	if err := check.End(); err != nil {
		return "", 0, bad(err)
	}
	return hex.EncodeToString(sum.Sum(nil)), size, nil
}
