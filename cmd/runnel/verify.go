package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/inspect"
	"github.com/runnel-fota/runnel/release"
)

// verified is what --json prints.
type verified struct {
	OK       bool              `json:"ok"`
	Error    string            `json:"error,omitempty"`
	Manifest *inspect.Manifest `json:"manifest,omitempty"`
	SHA256   string            `json:"manifest_sha256,omitempty"`
	KeyList  *listView         `json:"key_list,omitempty"`
	Signers  []string          `json:"signers,omitempty"` // public keys that counted
	Streams  []inspect.Stream  `json:"streams,omitempty"`
}

func newVerifyCmd() *cobra.Command {
	var roots []string
	var m int
	var list string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check all of a release file, from the roots down to the last byte",
		Long: `Checks that the key list is signed by the roots, the manifest by as many release keys
as the list asks for, that the image has the size, digest and roots that the manifest
says, that the bootloader would start it, and each derived stream. Exit status 1, with
what is wrong, for anything that is not whole and signed.

With --keylist, a list that is newer than the file's counts in its place: that is how
a revoked key is found. Whether the sequence is the one that a device takes next is
not checked: that depends on the device.

--json prints ok, error, manifest, manifest_sha256, key_list, signers and streams.`,
		Example: `  runnel verify pump-1.2.0.runnel --root keys/root.pub
  runnel verify pump-1.2.0.runnel --root keys/root-1.pub --root keys/root-2.pub --root keys/root-3.pub --m 2`,
		Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			trust, err := rootTrust(roots, m, cmd.Flags().Changed("m"))
			if err != nil {
				return err
			}
			if list != "" {
				env, err := readBounded(list, release.MaxEnvelope)
				if err != nil {
					return err
				}
				if trust, err = trust.Accept(env); err != nil {
					return fmt.Errorf("%s: %w", list, err)
				}
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			bar := newProgress(cmd.ErrOrStderr(), "verifying")
			c, err := release.Verify(cmd.Context(), f, trust, release.Options{Digests: true,
				Progress: func(_ string, done, total int64) { bar.Set(done, total) }})
			bar.End()
			if err != nil {
				err = fmt.Errorf("%s: %w", args[0], err)
				if asJSON {
					if e := printJSON(cmd.OutOrStdout(), verified{Error: err.Error()}); e != nil {
						return e
					}
				}
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), viewVerified(c))
			}
			showManifest(cmd.OutOrStdout(), c.Manifest)
			for _, s := range c.Signers {
				fmt.Fprintf(cmd.OutOrStdout(), "%-17s %s\n", "signed by", release.KeyName(s))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%-17s version %d, generation %d\n%-17s %s\nwhole and signed\n", "key list", c.Trust.Version, c.Trust.Generation, "manifest sha256", c.Digest())
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&roots, "root", nil, "`file` with public root keys in PEM; may be repeated")
	cmd.Flags().IntVar(&m, "m", 0, "`number` of those roots that must have signed the key list (default: all)")
	cmd.Flags().StringVar(&list, "keylist", "", "`file` with a key list that counts where it is newer than the file's")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// rootTrust makes trust of root files. How many must sign is the user's word, not
// the list's: whoever has one root could make a list that asks for one.
func rootTrust(files []string, m int, given bool) (*release.Trust, error) {
	if len(files) == 0 {
		return nil, usagef("--root is missing").withHint("name the public file of each root key: --root keys/root.pub")
	}
	var roots []ed25519.PublicKey
	for _, f := range files {
		keys, err := release.ReadPublic(f)
		if err != nil {
			return nil, err
		}
		roots = append(roots, keys...)
	}
	if !given {
		m = len(roots)
	}
	t, err := release.TrustRoots(0, m, roots...)
	if err != nil {
		return nil, usagef("%v", err).withHint("--m says how many of the roots must have signed")
	}
	return t, nil
}

func viewVerified(c *release.Contents) *verified {
	v := &verified{OK: true, Manifest: inspect.ViewManifest(c.Manifest), SHA256: c.Digest().String(), KeyList: viewList(c.Trust.List), Streams: inspect.ViewStreams(c)}
	for _, s := range c.Signers {
		v.Signers = append(v.Signers, hex.EncodeToString(s))
	}
	return v
}
