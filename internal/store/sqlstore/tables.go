package sqlstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"math"
	"strings"
)

// Table is a table of the domain, with the columns that every database has.
type Table struct {
	Name     string
	Columns  []string
	Key      string // what orders its rows
	Numbered bool   // id is counted by the database
	Single   bool   // it has one row in a new database too
}

// Tables are all of them, each after those that it refers to.
var Tables = []Table{
	table("catalogue", "id", "id generation").single(),
	table("fleet_clock", "id", "id clock wall").single(),
	table("seal", "id", "id sealed").single(),
	table("manifests", "id", "id digest kind envelope product version epoch sequence security_version image_digest added_at").numbered(),
	table("releases", "id", "id product version digest size chip project app_version idf_version chunk_size state published_at withdrawn_at epoch sequence security_version hardware manifest_digest slot draft notes channel checked").numbered(),
	table("devices", "id", "id product added_at last_seen running_version nonce nonce_reset_at clocked signed rollback_wanted rollback_reason rollback_sent_at retry_at strongest_wire native_nonce native_keys native_boot native_verdict hardware epoch sequence security_version list_version rollback_number slots running_slot tags attributes ask failures forced heard health"),
	table("rollouts", "id", "id product release_id course created_at version state phase reason began passed expected reach forgiven changed_at next_at").numbered(),
	table("device_groups", "name", "name product filter changed_at"),
	table("deployments", "device, release_id", "device release_id state chunks_received chunks_total verified boot_status reason proven started_at updated_at rollout phase class tries assurance heard raw_only"),
	table("events", "id", "id time device version name detail proven").numbered(),
	table("keys", "id", "id owner_kind owner purpose number state sealed created_at retired_at"),
	table("tokens", "id", "id name hash created_at revoked_at").numbered(),
	table("keylists", "version", "version generation first_of_generation digest envelope added_at"),
	table("streams", "digest", "digest release_id kind chunk length root sheet sheet_digest proven"),
	table("products", "name", "name signed_only by_operator added_at changed_at allow_v1 rollouts_only terms"),
	table("native_reports", "id", "id device boot number content").numbered(),
	table("enrol_tokens", "id", "id sealed product pattern count used approval created_at expires_at revoked_at"),
	table("enrolments", "token, device", "token device device_nonce server_nonce hardware status time"),
	table("derivations", "release_id, base, profile", "release_id base profile state devices percent sent stream reason tries maker lease changed_at"),
	table("stream_key", "id", "id sealed created_at"),
	table("decisions", "id", "id device time verdict rollout version why").numbered(),
}

func table(name, key, columns string) Table {
	return Table{Name: name, Key: key, Columns: strings.Fields(columns)}
}

func (t Table) numbered() Table { t.Numbered = true; return t }

func (t Table) single() Table { t.Single = true; return t }

// Query reads all of it, in order.
func (t Table) Query() string {
	return "SELECT " + strings.Join(t.Columns, ", ") + " FROM " + t.Name + " ORDER BY " + t.Key
}

// Rows calls f for each row of a table, in order: int64, float64, string, []byte, and
// nil for NULL. f keeps none of it.
func (s *Store) Rows(ctx context.Context, t Table, f func(row []any) error) error {
	return s.db.Read(ctx, "copy", func(v Runner) error {
		rows, err := v.Query(t.Query())
		if err != nil {
			return err
		}
		defer rows.Close()
		row, to := make([]any, len(t.Columns)), make([]any, len(t.Columns))
		for i := range row {
			to[i] = &row[i]
		}
		for rows.Next() {
			if err := rows.Scan(to...); err != nil {
				return err
			}
			for i, c := range row {
				if b, ok := c.([]byte); ok && b == nil {
					row[i] = []byte{} // bytes that are none, and not NULL
				}
			}
			if err := f(row); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

// Count is how many rows a table has.
func (s *Store) Count(ctx context.Context, t Table) (n int64, err error) {
	err = s.db.Row(ctx, "SELECT count(*) FROM "+t.Name).Scan(&n)
	return n, s.db.Wrap("count", err)
}

// Sum is a count and a digest of a table's rows: the same in every database that holds the same.
type Sum struct {
	Table string
	Rows  int64
	hash  hash.Hash
}

// NewSum is that of a table without rows.
func NewSum(t Table) *Sum { return &Sum{Table: t.Name, hash: sha256.New()} }

// Add takes the next row, of the types that Rows has.
func (s *Sum) Add(row []any) error {
	s.Rows++
	var b bytes.Buffer
	for _, v := range row {
		switch v := v.(type) {
		case nil:
			b.WriteByte(0)
		case int64:
			b.WriteByte(1)
			_ = binary.Write(&b, binary.BigEndian, v) // a buffer takes all
		case float64:
			b.WriteByte(2)
			_ = binary.Write(&b, binary.BigEndian, math.Float64bits(v)) // the same
		case string:
			b.WriteByte(3)
			_ = binary.Write(&b, binary.BigEndian, int64(len(v))) // the same
			b.WriteString(v)
		case []byte:
			b.WriteByte(4)
			_ = binary.Write(&b, binary.BigEndian, int64(len(v))) // the same
			b.Write(v)
		default:
			return fmt.Errorf("a column of %s is a %T", s.Table, v)
		}
	}
	s.hash.Write(b.Bytes())
	return nil
}

// Digest is a SHA-256 over the rows so far, in hex.
func (s *Sum) Digest() string { return hex.EncodeToString(s.hash.Sum(nil)) }
