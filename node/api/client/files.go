package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// lineMax bounds one line of a listing.
const lineMax = 64 << 10

// PoolFile is one path of the pool's files: a line of GET /v1/files/list and of
// its kin. Fields that a listing was not asked for are absent.
type PoolFile struct {
	Path     string    `json:"path" doc:"The path in the pool, from /"`
	Kind     string    `json:"kind" doc:"file, folder, or removed in a history"`
	Size     int64     `json:"size,omitempty" doc:"Bytes of the file; of all files in the folder where a listing sums up"`
	Files    int       `json:"files,omitempty" doc:"Files in a folder, where a listing sums up"`
	Mode     uint32    `json:"mode,omitempty" doc:"Permission bits"`
	Modified time.Time `json:"modified,omitzero" doc:"Modification time of the file"`
	Root     string    `json:"root,omitempty" doc:"CID of the file's bytes"`
	Version  string    `json:"version,omitempty" doc:"Name of this version of the path"`
	Written  time.Time `json:"written,omitzero" doc:"When this version was written"`
	Author   string    `json:"author,omitempty" doc:"Name of the peer that wrote it"`
	Conflict bool      `json:"conflict,omitempty" doc:"Whether it stands beside another that was written apart from it"`
	Current  bool      `json:"current,omitempty" doc:"Whether the path shows this version, in a history"`
	Safety   *Safety   `json:"safety,omitempty" doc:"How safe the bytes are"`
}

// Safety says how safe bytes are: the worst of them, where there are many.
type Safety struct {
	Copies   int    `json:"copies" doc:"Copies that there are, on machines that are there or sleep"`
	Wanted   int    `json:"wanted" doc:"Copies that there should be"`
	Online   int    `json:"online" doc:"Copies that can be read now"`
	Survives int    `json:"survives" doc:"Departures of any members that they survive"`
	State    string `json:"state" doc:"safe, short (of copies), single, asleep (no machine with a copy is there), lost, or empty"`
}

// FilePutRequest is the body of POST /v1/files/put.
type FilePutRequest struct {
	Source  string `json:"source" minLength:"1" maxLength:"4096" doc:"Absolute path of the file or folder on this machine"`
	Path    string `json:"path" minLength:"1" maxLength:"4096" doc:"Where it goes in the pool"`
	Copies  int    `json:"copies,omitempty" minimum:"0" maximum:"16" doc:"Copies to keep; 0 is 3"`
	AnyName bool   `json:"any_name,omitempty" doc:"Take names that other systems cannot hold"`
	NoWait  bool   `json:"no_wait,omitempty" doc:"Do not wait for the second copy"`
}

// FileTransfer is the SSE event "done" of POST /v1/files/put and /v1/files/get.
type FileTransfer struct {
	Path    string   `json:"path" doc:"Where it is now: in the pool after put, on this machine after get"`
	Files   int      `json:"files" doc:"Files that were written"`
	Folders int      `json:"folders" doc:"Folders that were made"`
	Size    int64    `json:"size" doc:"Bytes of the files that were written"`
	Same    int      `json:"same" doc:"Files that were there already and were left alone"`
	Skipped []string `json:"skipped,omitempty" doc:"What is no file and no folder, and was left out"`
	Copies  int      `json:"copies,omitempty" doc:"Durable copies of each byte, at least, after put"`
	Wanted  int      `json:"wanted,omitempty" doc:"Copies that there will be"`
	Elapsed float64  `json:"elapsed_s" doc:"Seconds it took"`
}

// FileGetRequest is the body of POST /v1/files/get.
type FileGetRequest struct {
	Path  string `json:"path" minLength:"1" maxLength:"4096" doc:"The file or folder in the pool"`
	Dest  string `json:"dest" minLength:"1" maxLength:"4096" doc:"Absolute path on this machine"`
	Force bool   `json:"force,omitempty" doc:"Replace files that differ"`
}

// FileRequest is the body of the requests that change one path.
type FileRequest struct {
	Path      string `json:"path" minLength:"1" maxLength:"4096" doc:"The path in the pool"`
	To        string `json:"to,omitempty" maxLength:"4096" doc:"mv, cp: the new path"`
	Version   string `json:"version,omitempty" maxLength:"64" doc:"restore: the version; empty is the last before the present one"`
	Recursive bool   `json:"recursive,omitempty" doc:"rm: a folder with all that is in it"`
	Force     bool   `json:"force,omitempty" doc:"mv, cp: replace what is at the new path"`
	Parents   bool   `json:"parents,omitempty" doc:"mkdir: folders above too, and no error if it is there"`
}

// FileChange is how many paths a request changed.
type FileChange struct {
	Changed int `json:"changed" doc:"Paths that were changed"`
}

// ListOptions chooses what a listing shows.
type ListOptions struct {
	Long      bool   // all fields, how safe it is included
	Recursive bool   // everything below
	Pattern   string // only what matches; implies Recursive
	Sum       bool   // sizes and counts of folders
}

// Space is the answer to GET /v1/files/space: the pool's disk, and how safe
// what is on it is.
type Space struct {
	Members []MemberSpace `json:"members" nullable:"false" doc:"Each member's part"`
	Files   int           `json:"files" doc:"Files in the pool"`
	Size    int64         `json:"size" doc:"Bytes of these files and their earlier versions, the same bytes counted once"`
	Classes []SafetyClass `json:"classes" nullable:"false" doc:"How safe they are"`
	Thin    int64         `json:"thin" doc:"Bytes of which one copy can be read now, while the others are on machines that are away"`
	Repair  Repairing     `json:"repair" doc:"Copies under way"`
	Store   StoreUsage    `json:"store" doc:"This peer's own store"`
}

// MemberSpace is what one member lends and holds.
type MemberSpace struct {
	ID    string `json:"id" doc:"The peer's id"`
	Name  string `json:"name" doc:"Its name"`
	State string `json:"state" doc:"online, away, absent or departed"`
	Space int64  `json:"space" doc:"Bytes that it lends"`
	Held  int64  `json:"held" doc:"Bytes of pool files on it"`
}

// SafetyClass is how much of the pool's bytes is as safe as that.
type SafetyClass struct {
	State    string `json:"state" doc:"As in Safety"`
	Pieces   int    `json:"pieces" doc:"Pieces of files"`
	Bytes    int64  `json:"bytes" doc:"Bytes"`
	Survives int    `json:"survives" doc:"Departures of any members that all of it survives"`
}

// Repairing is what the peer does to mend copies.
type Repairing struct {
	Fetching int    `json:"fetching" doc:"Pieces on their way to this peer"`
	Waiting  int    `json:"waiting" doc:"Pieces that are short of copies and wait, as their holders may come back"`
	Bytes    int64  `json:"bytes" doc:"Bytes fetched for repairs since the peer started"`
	Paused   string `json:"paused,omitempty" doc:"Why nothing is mended now"`
}

// StoreUsage is what this peer's store of pool files holds, in bytes on disk.
type StoreUsage struct {
	Quota       int64 `json:"quota" doc:"The most it may take"`
	Held        int64 `json:"held" doc:"Copies that it keeps"`
	Cached      int64 `json:"cached" doc:"What was read lately; the first to go"`
	Quarantined int64 `json:"quarantined" doc:"What nothing names any more; deleted after a day"`
	Damaged     int64 `json:"damaged" doc:"What was found damaged, and is kept until it comes again"`
	Waste       int64 `json:"waste" doc:"What comes free when packs are compacted"`
	Free        int64 `json:"free" doc:"What may still be stored"`
}

// WhatIf is the answer to GET /v1/files/what-if: what a member's departure would mean.
type WhatIf struct {
	Peer   string   `json:"peer" doc:"The member"`
	Held   int64    `json:"held" doc:"Bytes that it holds"`
	Lost   []string `json:"lost" nullable:"false" doc:"Paths that would be lost, the first 1,000"`
	Losses int      `json:"losses" doc:"Paths that would be lost, in all"`
	Moved  int64    `json:"moved" doc:"Bytes that others would have to fetch"`
	Room   bool     `json:"room" doc:"Whether the others have room for that"`
	Asleep int64    `json:"asleep" doc:"Bytes that could not be read for now, as all other copies are on machines that are away"`
}

// ScrubReport is the SSE event "done" of POST /v1/files/scrub.
type ScrubReport struct {
	Pieces   int     `json:"pieces" doc:"Pieces that were read again"`
	Bytes    int64   `json:"bytes" doc:"Their bytes"`
	Damaged  int     `json:"damaged" doc:"Pieces that were not what they should be"`
	Repaired int     `json:"repaired" doc:"Of these, fetched again from others"`
	Missing  int     `json:"missing" doc:"Pieces that names speak of and nobody is known to hold"`
	Orphans  int     `json:"orphans" doc:"Pieces here that no name speaks of"`
	Elapsed  float64 `json:"elapsed_s" doc:"Seconds it took"`
}

// Collected is the answer to POST /v1/files/gc.
type Collected struct {
	Quarantined int   `json:"quarantined" doc:"Pieces that were put aside"`
	Purged      int   `json:"purged" doc:"Pieces that were deleted"`
	Freed       int64 `json:"freed" doc:"Bytes of disk that came free"`
}

// MountRequest is the body of POST /v1/files/mount.
type MountRequest struct {
	Listen   string `json:"listen" minLength:"1" maxLength:"255" doc:"Loopback address and port to serve WebDAV on; port 0 is any"`
	ReadOnly bool   `json:"read_only,omitempty" doc:"Refuse whatever would change something"`
}

// Mounted is the SSE event "mounted" of POST /v1/files/mount.
type Mounted struct {
	URL      string `json:"url" doc:"Where the files are"`
	User     string `json:"user" doc:"User name, which may be any"`
	Password string `json:"password" doc:"Password"`
}

// EventMounted is the name of the event that says that a mount can be used.
const EventMounted = "mounted"

// FileMount serves the pool's files over WebDAV until ctx ends, which is no error. It calls ready once.
func (c *Client) FileMount(ctx context.Context, req MountRequest, ready func(Mounted) error) error {
	_, err := follow(ctx, c, http.MethodPost, "/v1/files/mount", req, func(e event, out *struct{}) (bool, error) {
		if e.Name != EventMounted {
			return handle(e, out, nil)
		}
		m, err := decode[Mounted](e)
		if err != nil {
			return true, err
		}
		return false, ready(m)
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// FilePut copies a file or folder into the pool. Progress is as in Share.
func (c *Client) FilePut(ctx context.Context, req FilePutRequest, progress func(Progress)) (FileTransfer, error) {
	return stream[FileTransfer](ctx, c, "/v1/files/put", req, progress)
}

// FileWrite makes a pool file of what r yields.
func (c *Client) FileWrite(ctx context.Context, path string, copies int, r io.Reader) (FileTransfer, error) {
	query := url.Values{"path": {path}, "copies": {strconv.Itoa(copies)}}
	return upload[FileTransfer](ctx, c, "/v1/files/write?"+query.Encode(), r)
}

// FileGet copies a file or folder of the pool to this machine.
func (c *Client) FileGet(ctx context.Context, req FileGetRequest, progress func(Progress)) (FileTransfer, error) {
	return stream[FileTransfer](ctx, c, "/v1/files/get", req, progress)
}

// FileList calls each for what is in a folder, by name, or for the one file.
func (c *Client) FileList(ctx context.Context, path string, opt ListOptions, each func(PoolFile) error) error {
	query := url.Values{"path": {path}, "pattern": {opt.Pattern}}
	for name, on := range map[string]bool{"long": opt.Long, "recursive": opt.Recursive, "sum": opt.Sum} {
		query.Set(name, strconv.FormatBool(on))
	}
	return c.lines(ctx, "/v1/files/list?"+query.Encode(), each)
}

// NamesEnd begins the last line of a listing of names.
const NamesEnd = "\x01"

// FileNames calls each for the paths of a listing, those of folders with a / behind: FileList with a tenth of the work.
// The bytes are valid until each returns.
func (c *Client) FileNames(ctx context.Context, path string, recursive bool, each func(path []byte) error) error {
	query := url.Values{"path": {path}, "names": {"true"}, "recursive": {strconv.FormatBool(recursive)}}
	resp, err := c.do(ctx, http.MethodGet, "/v1/files/list?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 64<<10), lineMax)
	for lines.Scan() {
		text, last := bytes.CutPrefix(lines.Bytes(), []byte(NamesEnd))
		switch {
		case last && len(text) == 0:
			return nil
		case last:
			failed := new(Error)
			if err := json.Unmarshal(text, failed); err != nil {
				return fmt.Errorf("api: list: %w", err)
			}
			return failed
		}
		if err := each(text); err != nil {
			return err
		}
	}
	return c.lost(ctx, errors.Join(lines.Err(), errors.New("the answer was cut off")))
}

// FileStat returns the one path, a folder without what is in it.
func (c *Client) FileStat(ctx context.Context, path string) (PoolFile, error) {
	return call[PoolFile](ctx, c, http.MethodGet, "/v1/files/stat?"+url.Values{"path": {path}}.Encode())
}

// FileHistory calls each for every version of a path that is still known, newest first.
func (c *Client) FileHistory(ctx context.Context, path string, each func(PoolFile) error) error {
	return c.lines(ctx, "/v1/files/history?"+url.Values{"path": {path}}.Encode(), each)
}

// lines reads a listing of pool files.
func (c *Client) lines(ctx context.Context, path string, each func(PoolFile) error) error {
	return readLines(ctx, c, path, lineMax, each)
}

// FileMkdir makes a folder.
func (c *Client) FileMkdir(ctx context.Context, req FileRequest) (FileChange, error) {
	return send[FileChange](ctx, c, http.MethodPost, "/v1/files/mkdir", req)
}

// FileMove gives a file or folder another path.
func (c *Client) FileMove(ctx context.Context, req FileRequest) (FileChange, error) {
	return send[FileChange](ctx, c, http.MethodPost, "/v1/files/mv", req)
}

// FileCopy gives a file or folder a second path; no bytes are copied.
func (c *Client) FileCopy(ctx context.Context, req FileRequest) (FileChange, error) {
	return send[FileChange](ctx, c, http.MethodPost, "/v1/files/cp", req)
}

// FileRemove removes a file or folder; it can be restored for 30 days.
func (c *Client) FileRemove(ctx context.Context, req FileRequest) (FileChange, error) {
	return send[FileChange](ctx, c, http.MethodPost, "/v1/files/rm", req)
}

// FileRestore brings an earlier version back.
func (c *Client) FileRestore(ctx context.Context, req FileRequest) (FileChange, error) {
	return send[FileChange](ctx, c, http.MethodPost, "/v1/files/restore", req)
}

// FilePurge deletes replaced and removed versions at and under a path for good.
func (c *Client) FilePurge(ctx context.Context, req FileRequest) (FileChange, error) {
	return send[FileChange](ctx, c, http.MethodPost, "/v1/files/purge", req)
}

// FilePin has this peer keep all that is at a path.
func (c *Client) FilePin(ctx context.Context, req FileRequest) (FileChange, error) {
	return send[FileChange](ctx, c, http.MethodPost, "/v1/files/pin", req)
}

// FileUnpin ends what FilePin began.
func (c *Client) FileUnpin(ctx context.Context, req FileRequest) (FileChange, error) {
	return send[FileChange](ctx, c, http.MethodPost, "/v1/files/unpin", req)
}

// FilePins lists what is pinned to this peer.
func (c *Client) FilePins(ctx context.Context, each func(PoolFile) error) error {
	return c.lines(ctx, "/v1/files/pins", each)
}

// FileSpace tells of the pool's disk.
func (c *Client) FileSpace(ctx context.Context) (Space, error) {
	return call[Space](ctx, c, http.MethodGet, "/v1/files/space")
}

// FileWhatIf tells what the departure of a member would mean.
func (c *Client) FileWhatIf(ctx context.Context, remove string) (WhatIf, error) {
	return call[WhatIf](ctx, c, http.MethodGet, "/v1/files/what-if?"+url.Values{"remove": {remove}}.Encode())
}

// FileScrub reads everything that this peer holds again, and mends it.
func (c *Client) FileScrub(ctx context.Context, progress func(Progress)) (ScrubReport, error) {
	return stream[ScrubReport](ctx, c, "/v1/files/scrub", struct{}{}, progress)
}

// FileCollect puts aside what no name speaks of; with purge it deletes what was put aside, too.
func (c *Client) FileCollect(ctx context.Context, purge bool) (Collected, error) {
	return send[Collected](ctx, c, http.MethodPost, "/v1/files/gc", struct {
		Purge bool `json:"purge"`
	}{purge})
}
