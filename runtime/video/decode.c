// SPDX-License-Identifier: Apache-2.0
// The border to FFmpeg: one file in, upright RGB frames of its main video stream out.
//
//   descriptor (fstat: regular) -> own read callback -> demuxer (listed) -> decoder (listed, 1 thread)
//     -> current frame -> swscale (square pixels, one geometry for the whole file) -> quarter turns
//
// FFmpeg gets bytes from one descriptor that we opened, so the file that was checked is the file that
// is read, no name is ever interpreted as a protocol or pattern, and demuxers that want to open more
// files are refused. Each read and each packet looks at the clock and at `cancel`.
#include "runtime/video/nvdec.h"

#include "base/log.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/avstring.h>
#include <libavutil/display.h>
#include <libavutil/imgutils.h>
#include <libavutil/md5.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char formats[] =
    "mov,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,ogg,asf,h264,hevc,m4v,ivf,yuv4mpegpipe,mxf,rm";
static const char codecs[] = "h264,hevc,mpeg1video,mpeg2video,mpeg4,msmpeg4v1,msmpeg4v2,msmpeg4,"
                             "h263,h263p,flv,wmv1,wmv2,wmv3,"
                             "vc1,vp6,vp6f,vp6a,vp8,vp9,libdav1d,libaom-av1,av1,theora,mjpeg,"
                             "prores,dnxhd,dvvideo,ffv1,huffyuv,"
                             "ffvhuff,utvideo,rawvideo,rv30,rv40,svq1,svq3,cinepak";

enum { IO_BYTES = 1 << 16 };
static const double max_aspect = 4;       // of one pixel, either way
static const double read_on_seconds = 5;  // of packets passed over rather than sought across

// What a conversion context was made for; a change of any part makes a new one.
typedef struct geometry {
  int src_w, src_h, src_format, dst_w, dst_h, matrix, full_range;
} geometry;

struct md_video {
  int fd;
  AVIOContext *io;
  AVFormatContext *demux;
  AVCodecContext *decoder;
  AVStream *stream;
  AVPacket *packet;
  AVFrame *frame, *spare;  // spare becomes frame when it is complete
  AVFrame *fetched;        // on its way from a GPU
  struct SwsContext *scaler;
  geometry scaled;
  uint8_t *rgb[4];  // output of the scaler: planes G, B, R, rows aligned for its vector code
  int rgb_stride[4];
  md_video_limits limits;
  int64_t deadline_ns, packets, frames, gpu_frames, damaged;
  int64_t start_pts, key_pts, seek_ns;              // key_pts: of the last key frame read
  bool (*is_wanted)(const void *ctx, int64_t pts);  // NULL: all
  const void *wanted_ctx;
  bool is_one_to_one, is_skipping, is_flushed, is_over, was_stopped;
  int rotation;
  int header_w, header_h;  // the largest video that the header promises; it may lie
  int grid_w, grid_h;      // of the first frame, before rotation
  double aspect;           // of one pixel, w / h
};

struct md_video_md5 {
  struct AVMD5 *state;
};

__attribute__((format(printf, 4, 5))) static bool fail(md_fault *f, md_code code, const char *hint,
                                                       const char *fmt, ...) {
  f->code = code;
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(f->text, sizeof f->text, fmt, ap);
  va_end(ap);
  snprintf(f->hint, sizeof f->hint, "%s", hint ? hint : "");
  return false;
}

static const char *why(int error) {
  static const struct {
    int error;
    const char *text;
  } known[] = {
      {AVERROR_INVALIDDATA, "the data make no sense as a video"},
      {AVERROR_EOF, "the file ends too early"},
      {AVERROR(EINVAL), "its container is not one that is read here, or its header is invalid"},
      {AVERROR(ENOMEM), "its header asks for more memory than there is"},
      {AVERROR(EPERM), "it refers to other files"},
  };
  for (int i = 0; i < MD_COUNT(known); i++)
    if (known[i].error == error) return known[i].text;
  return "libavformat does not accept it";
}

// Where the first line of this thread's log goes; NULL: nobody asks for it.
static _Thread_local char *first_line;
static _Thread_local int first_size;

void md_ffmpeg_log_begin(char *line, int size) {
  first_line = line;
  first_size = size;
}

void md_ffmpeg_log_end(void) { first_line = NULL; }

static void keep_line(const char *fmt, va_list ap) {
  va_list again;
  va_copy(again, ap);
  vsnprintf(first_line, (size_t)first_size, fmt, again);
  va_end(again);
  first_line[strcspn(first_line, "\n")] = '\0';
  first_line = NULL;
}

static void to_log(void *ctx, int level, const char *fmt, va_list ap) {
  if (level <= AV_LOG_ERROR && first_line) keep_line(fmt, ap);
  if (level > AV_LOG_ERROR || !md_log_on(MD_LOG_DATA, MD_LEVEL_DEBUG)) return;
  char line[512], shown[512];
  int prefix = 1;
  av_log_format_line2(ctx, level, fmt, ap, line, sizeof line, &prefix);
  line[strcspn(line, "\n")] = '\0';
  md_log(MD_LOG_DATA, MD_LEVEL_DEBUG, "ffmpeg: %s", md_clean(line, shown, sizeof shown));
}

// FFmpeg has one log for the process: it must not write to a terminal that is ours.
static void take_log(void) { av_log_set_callback(to_log); }

void md_ffmpeg_take_log(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, take_log);
}

static bool must_stop(md_video *v) {
  if (v->limits.cancel && atomic_load_explicit(v->limits.cancel, memory_order_relaxed))
    v->was_stopped = true;
  if (md_now_ns() > v->deadline_ns) v->was_stopped = true;
  return v->was_stopped;
}

static int interrupted(void *ctx) { return must_stop(ctx); }

static int read_bytes(void *ctx, uint8_t *data, int size) {
  md_video *v = ctx;
  if (must_stop(v)) return AVERROR_EXIT;
  ssize_t n;
  do n = read(v->fd, data, (size_t)size);
  while (n < 0 && errno == EINTR);
  if (n < 0) return AVERROR(errno);
  return n ? (int)n : AVERROR_EOF;
}

static int64_t seek_bytes(void *ctx, int64_t offset, int whence) {
  md_video *v = ctx;
  if (whence & AVSEEK_SIZE) {
    struct stat st;
    return fstat(v->fd, &st) ? AVERROR(errno) : st.st_size;
  }
  int64_t at = lseek(v->fd, offset, whence & ~AVSEEK_FORCE);
  return at < 0 ? AVERROR(errno) : at;
}

// Playlists, references to tracks in other files, subtitles beside the video: none is opened.
static int refuse_more_files(AVFormatContext *s, AVIOContext **io, const char *url, int flags,
                             AVDictionary **options) {
  (void)s, (void)url, (void)flags, (void)options;
  *io = NULL;
  return AVERROR(EPERM);
}

static bool open_regular(md_video *v, const char *path, md_fault *f) {
  v->fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  struct stat st;
  if (v->fd < 0 || fstat(v->fd, &st)) {
    char words[128];
    return fail(f, E0501, NULL, "video cannot be opened: %s",
                strerror_r(errno, words, sizeof words));
  }
  if (S_ISREG(st.st_mode) && st.st_size == 0)
    return fail(f, E0501, NULL, "video is empty: 0 bytes");
  if (S_ISREG(st.st_mode)) return true;
  const char *kind = S_ISDIR(st.st_mode)    ? "a folder"
                     : S_ISFIFO(st.st_mode) ? "a FIFO"
                     : S_ISCHR(st.st_mode)  ? "a device"
                                            : "no regular file";
  return fail(f, E0501, NULL, "is %s; a video must be a regular file", kind);
}

static bool stopped(md_video *v, md_fault *f) {
  fail(f, E0502, NULL, "reading took more than %g seconds and was stopped", v->limits.max_seconds);
  f->is_slow = true;
  return false;
}

static const int picture =
    AV_DISPOSITION_ATTACHED_PIC | AV_DISPOSITION_TIMED_THUMBNAILS | AV_DISPOSITION_STILL_IMAGE;

static void note_header_size(md_video *v) {
  for (unsigned i = 0; i < v->demux->nb_streams; i++) {
    const AVStream *s = v->demux->streams[i];
    const AVCodecParameters *p = s->codecpar;
    if (p->codec_type != AVMEDIA_TYPE_VIDEO || (s->disposition & picture)) continue;
    if ((int64_t)p->width * p->height <= (int64_t)v->header_w * v->header_h) continue;
    v->header_w = p->width;
    v->header_h = p->height;
  }
}

static bool open_container(md_video *v, const char *path, md_fault *f) {
  uint8_t *buffer = av_malloc(IO_BYTES);
  v->io = buffer ? avio_alloc_context(buffer, IO_BYTES, 0, v, read_bytes, NULL, seek_bytes) : NULL;
  v->demux = avformat_alloc_context();
  md_text url = {0};
  md_put(&url, "file:%s", path);
  if (!v->io || !v->demux) {
    if (!v->io) av_free(buffer);
    md_text_free(&url);
    return fail(f, E0501, NULL, "out of memory while the video was opened");
  }
  v->demux->pb = v->io;
  v->demux->flags |= AVFMT_FLAG_CUSTOM_IO;
  v->demux->io_open = refuse_more_files;
  v->demux->interrupt_callback = (AVIOInterruptCB){interrupted, v};
  AVDictionary *options = NULL;
  av_dict_set(&options, "protocol_whitelist", "file", 0);
  av_dict_set(&options, "format_whitelist", formats, 0);
  av_dict_set(&options, "codec_whitelist", codecs, 0);
  int error = avformat_open_input(&v->demux, url.s, NULL, &options);  // frees demux on failure
  av_dict_free(&options);
  md_text_free(&url);
  if (v->was_stopped) return stopped(v, f);
  if (error < 0) return fail(f, E0501, NULL, "is not a video that can be read: %s", why(error));

  note_header_size(v);  // before FFmpeg forgets what is over the limit

  // The same limits hold for the decoders that find_stream_info opens to learn about streams.
  unsigned num = v->demux->nb_streams;
  AVDictionary **each = num ? av_calloc(num, sizeof(AVDictionary *)) : NULL;
  if (num && !each) return fail(f, E0501, NULL, "out of memory while the video was opened");
  for (unsigned i = 0; i < num; i++)
    av_dict_set_int(&each[i], "max_pixels", v->limits.max_pixels, 0);
  error = avformat_find_stream_info(v->demux, each);
  for (unsigned i = 0; i < num; i++) av_dict_free(&each[i]);
  av_free(each);
  if (v->was_stopped) return stopped(v, f);
  if (error < 0) return fail(f, E0501, NULL, "is not a video that can be read: %s", why(error));
  note_header_size(v);
  return true;
}

// The first video stream marked default, else the first; pictures that accompany audio are none.
static bool pick_stream(md_video *v, const AVCodec **codec, md_fault *f) {
  const AVStream *unusable = NULL;
  bool has_picture = false;
  for (unsigned i = 0; i < v->demux->nb_streams; i++) {
    AVStream *s = v->demux->streams[i];
    s->discard = AVDISCARD_ALL;
    if (s->codecpar->codec_type != AVMEDIA_TYPE_VIDEO) continue;
    if (s->disposition & picture) {
      has_picture = true;
      continue;
    }
    const AVCodec *c = avcodec_find_decoder(s->codecpar->codec_id);
    if (!c || av_match_list(c->name, codecs, ',') <= 0) {
      unusable = s;
      continue;
    }
    bool better = (s->disposition & AV_DISPOSITION_DEFAULT) && v->stream &&
                  !(v->stream->disposition & AV_DISPOSITION_DEFAULT);
    if (v->stream && !better) continue;
    v->stream = s;
    *codec = c;
  }
  if (v->stream) {
    v->stream->discard = AVDISCARD_DEFAULT;
    return true;
  }
  if (unusable) {
    const AVCodecParameters *p = unusable->codecpar;
    char tag[AV_FOURCC_MAX_STRING_SIZE], shown[AV_FOURCC_MAX_STRING_SIZE];
    const char *name = p->codec_id    ? avcodec_get_name(p->codec_id)
                       : p->codec_tag ? av_fourcc_make_string(tag, p->codec_tag)
                                      : "unknown";
    return fail(f, E0501, "convert it first: ffmpeg -i IN -c:v libx264 OUT.mp4",
                "has video in a codec that is not decoded here (%s)",
                md_clean(name, shown, sizeof shown));
  }
  return fail(f, E0501, NULL, "has no video stream%s", has_picture ? ", only a cover picture" : "");
}

static int quarter_turns(AVStream *s) {
  size_t bytes = 0;
  const uint8_t *data = av_stream_get_side_data(s, AV_PKT_DATA_DISPLAYMATRIX, &bytes);
  if (!data || bytes < 9 * sizeof(int32_t)) return 0;
  int32_t matrix[9];
  memcpy(matrix, data, sizeof matrix);
  double angle = -av_display_rotation_get(matrix);  // clockwise; NaN for a singular matrix
  if (!isfinite(angle)) return 0;
  int turns = (int)lround(angle / 90) % 4;
  return 90 * ((turns + 4) % 4);
}

// Whether each packet is one shown frame with its own time. Elsewhere packets may be fields, hidden
// references, or lack times.
static bool packets_are_frames(const md_video *v) {
  enum AVFieldOrder order = v->stream->codecpar->field_order;
  return (av_match_name("mov", v->demux->iformat->name) ||
          av_match_name("matroska", v->demux->iformat->name)) &&
         (order == AV_FIELD_PROGRESSIVE || order == AV_FIELD_UNKNOWN) &&
         av_match_list(v->decoder->codec->name, "h264,hevc,vp9,libdav1d,mpeg4,mjpeg,prores,ffv1",
                       ',') > 0;
}

static bool is_too_large(const md_video *v) {
  return (int64_t)v->header_w * v->header_h > v->limits.max_pixels;
}

static bool too_large(const md_video *v, md_fault *f) {
  return fail(f, E0502, NULL, "has frames of %dx%d pixels; the limit is %lld pixels", v->header_w,
              v->header_h, (long long)v->limits.max_pixels);
}

// A GPU tells little of what is wrong, and fails for reasons of its own, of which memory is one: the CPU
// looks at the file instead.
static bool leave_to_cpu(md_fault *f) {
  fail(f, E0501, NULL, "the GPU could not decode it");
  f->is_of_gpu = true;
  return false;
}

static bool open_decoder(md_video *v, const AVCodec *codec, md_fault *f) {
  MD_ASSERT(v->stream && codec, "no stream was picked");
  v->decoder = avcodec_alloc_context3(codec);
  v->packet = av_packet_alloc();
  v->frame = av_frame_alloc();
  v->spare = av_frame_alloc();
  v->fetched = av_frame_alloc();
  if (!v->decoder || !v->packet || !v->frame || !v->spare || !v->fetched)
    return fail(f, E0501, NULL, "out of memory while the video was opened");
  int error = avcodec_parameters_to_context(v->decoder, v->stream->codecpar);
  v->decoder->thread_count = 1;  // parallel over videos, and order of frames never depends on it
  v->decoder->pkt_timebase = v->stream->time_base;
  v->decoder->max_pixels = v->limits.max_pixels;
  if (v->limits.nvdec) md_nvdec_attach(v->limits.nvdec, v->decoder);
  if (error >= 0) error = avcodec_open2(v->decoder, codec, NULL);
  if (error < 0 && is_too_large(v)) return too_large(v, f);
  if (error < 0 && v->decoder->hw_device_ctx) return leave_to_cpu(f);
  if (error < 0) return fail(f, E0501, NULL, "decoder %s does not accept the stream", codec->name);
  v->is_one_to_one = packets_are_frames(v);
  v->rotation = quarter_turns(v->stream);
  return true;
}

static md_video_step too_many(const md_video *v, md_fault *f) {
  fail(f, E0502, "cut it into shorter files", "has more than %lld frames",
       (long long)v->limits.max_frames);
  return MD_VIDEO_FAILED;
}

// One packet of the stream into v->packet. END also when the container is damaged from here on.
static md_video_step read_packet(md_video *v, md_fault *f) {
  for (;;) {
    av_packet_unref(v->packet);
    int error = av_read_frame(v->demux, v->packet);
    if (must_stop(v)) return stopped(v, f), MD_VIDEO_FAILED;
    if (error == AVERROR(ENOMEM))
      return fail(f, E0501, NULL, "out of memory while packets were read"), MD_VIDEO_FAILED;
    if (error < 0) {
      if (error != AVERROR_EOF) v->damaged++;
      return MD_VIDEO_END;
    }
    if (v->packet->stream_index != v->stream->index) continue;
    if (v->packet->flags & AV_PKT_FLAG_KEY) v->key_pts = v->packet->pts;
    return ++v->packets > v->limits.max_frames ? too_many(v, f) : MD_VIDEO_FRAME;
  }
}

// Packets before the wanted key frame are passed over.
static md_video_step next_packet(md_video *v, md_fault *f) {
  if (!v->is_skipping) return read_packet(v, f);
  int64_t begin = md_thread_cpu_ns();
  md_video_step step;
  do step = read_packet(v, f);
  while (step == MD_VIDEO_FRAME &&
         (!(v->packet->flags & AV_PKT_FLAG_KEY) || v->packet->pts != v->start_pts));
  v->is_skipping = step != MD_VIDEO_FRAME;
  v->seek_ns += md_thread_cpu_ns() - begin;
  return step;
}

// Gives the decoder one packet, or its end.
static md_video_step feed(md_video *v, md_fault *f) {
  md_video_step step = next_packet(v, f);
  if (step == MD_VIDEO_FAILED) return step;
  if (step == MD_VIDEO_END) {
    v->is_flushed = true;
    avcodec_send_packet(v->decoder, NULL);
    return MD_VIDEO_FRAME;
  }
  // The decoder is asked for frames first, so that it decodes this packet now, under this setting.
  bool is_wanted = !v->is_wanted || v->packet->pts == AV_NOPTS_VALUE ||
                   v->is_wanted(v->wanted_ctx, v->packet->pts);
  v->decoder->skip_frame = is_wanted ? AVDISCARD_DEFAULT : AVDISCARD_NONREF;
  int error = avcodec_send_packet(v->decoder, v->packet);
  if (error < 0 && md_nvdec_has(v->decoder)) return leave_to_cpu(f), MD_VIDEO_FAILED;
  if (error == AVERROR(ENOMEM))
    return fail(f, E0501, NULL, "out of memory while a frame was decoded"), MD_VIDEO_FAILED;
  if (error < 0) v->damaged++;
  return MD_VIDEO_FRAME;
}

// Frames stay on a GPU until somebody looks at them: of a pass for few frames most are never fetched.
static bool fetch(md_video *v, AVFrame *frame, md_fault *f) {
  return frame->format != AV_PIX_FMT_CUDA || md_nvdec_fetch(frame, v->fetched) || leave_to_cpu(f);
}

// Whether the new frame can be used; *f says why not. The first one fixes the geometry.
static bool take_geometry(md_video *v, md_fault *f) {
  const AVFrame *fr = v->spare;
  if (fr->width < 1 || fr->height < 1 || !sws_isSupportedInput(fr->format))
    return fail(f, E0501, NULL, "frames of %dx%d pixels in format %s cannot be converted",
                fr->width, fr->height, av_get_pix_fmt_name(fr->format));
  if ((int64_t)fr->width * fr->height > v->limits.max_pixels)
    return fail(f, E0502, NULL, "has frames of %dx%d pixels; the limit is %lld pixels", fr->width,
                fr->height, (long long)v->limits.max_pixels);
  if (v->grid_w) return true;
  v->grid_w = fr->width;
  v->grid_h = fr->height;
  AVRational sar = av_guess_sample_aspect_ratio(v->demux, v->stream, v->spare);
  v->aspect = sar.num > 0 && sar.den > 0 ? av_q2d(sar) : 1;
  if (v->aspect > max_aspect || v->aspect < 1 / max_aspect) v->aspect = 1;
  return true;
}

// The decoder is empty: fine if a frame has come, otherwise the reason is found here.
static md_video_step finish(md_video *v, md_fault *f) {
  if (v->grid_w) return MD_VIDEO_END;
  if (is_too_large(v)) too_large(v, f);
  else if (!v->frames)
    fail(f, E0501, NULL, "holds no frame that can be decoded (%lld packets were tried)",
         (long long)v->packets);
  return MD_VIDEO_FAILED;  // frames that cannot be used have left their reason
}

// The decoder's next complete frame in v->spare.
static md_video_step receive(md_video *v, md_fault *f) {
  for (;;) {
    int error = avcodec_receive_frame(v->decoder, v->spare);
    if (error == AVERROR_EOF) return finish(v, f);
    if (must_stop(v)) return stopped(v, f), MD_VIDEO_FAILED;
    if (error == AVERROR(EAGAIN)) {
      if (feed(v, f) == MD_VIDEO_FAILED) return MD_VIDEO_FAILED;
      continue;
    }
    if (error < 0 && md_nvdec_has(v->decoder)) return leave_to_cpu(f), MD_VIDEO_FAILED;
    if (error < 0) {
      v->damaged++;
      if (v->is_flushed) return finish(v, f);  // a decoder that fails while it is emptied is done
      continue;
    }
    v->gpu_frames += v->spare->format == AV_PIX_FMT_CUDA;
    if (++v->frames > v->limits.max_frames) return too_many(v, f);
    // The first one says what all are like.
    if (v->grid_w && v->spare->format == AV_PIX_FMT_CUDA) return MD_VIDEO_FRAME;
    if (!fetch(v, v->spare, f)) return MD_VIDEO_FAILED;
    if (take_geometry(v, f)) return MD_VIDEO_FRAME;
    v->damaged++;
  }
}

static void scale_to_square(const md_video *v, int short_side, int *w, int *h) {
  double wide = v->grid_w * MD_MAX(v->aspect, 1), high = v->grid_h / MD_MIN(v->aspect, 1);
  double scale = short_side ? MD_MIN(1, short_side / MD_MIN(wide, high)) : 1;
  *w = (int)MD_MAX(1, lround(wide * scale));
  *h = (int)MD_MAX(1, lround(high * scale));
}

static bool prepare_scaler(md_video *v, int w, int h, md_fault *f) {
  const AVFrame *fr = v->frame;
  bool is_full = fr->color_range == AVCOL_RANGE_JPEG || fr->format == AV_PIX_FMT_YUVJ420P ||
                 fr->format == AV_PIX_FMT_YUVJ422P || fr->format == AV_PIX_FMT_YUVJ444P ||
                 fr->format == AV_PIX_FMT_YUVJ440P || fr->format == AV_PIX_FMT_YUVJ411P;
  int matrix = fr->colorspace == AVCOL_SPC_UNSPECIFIED ? SWS_CS_DEFAULT : (int)fr->colorspace;
  geometry want = {fr->width, fr->height, fr->format, w, h, matrix, is_full};
  if (v->scaler && !memcmp(&want, &v->scaled, sizeof want)) return true;
  sws_freeContext(v->scaler);
  av_freep(&v->rgb[0]);
  // Into planes: there swscale has vector code that is exact for these flags, and five times as fast,
  // and it interpolates chroma along y at every size.
  v->scaler = sws_getContext(fr->width, fr->height, fr->format, w, h, AV_PIX_FMT_GBRP,
                             SWS_BILINEAR | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_BITEXACT,
                             NULL, NULL, NULL);
  if (!v->scaler || av_image_alloc(v->rgb, v->rgb_stride, w + 32, h, AV_PIX_FMT_GBRP, 64) < 0)
    return fail(f, E0501, NULL, "frames of %dx%d pixels cannot be scaled to %dx%d", fr->width,
                fr->height, w, h);
  const int *table = sws_getCoefficients(matrix);
  sws_setColorspaceDetails(v->scaler, table, is_full, table, 1, 0, 1 << 16, 1 << 16);
  v->scaled = want;
  return true;
}

// Packed copy of the scaler's planes, turned clockwise by quarter turns.
static void copy_upright(const md_video *v, int w, int h, uint8_t *out) {
  // Pixel (x, y) goes to place from + x * step_x + y * step_y.
  int64_t from = 0, step_x = 1, step_y = w;
  if (v->rotation == 90) from = h - 1, step_x = h, step_y = -1;
  else if (v->rotation == 180) from = (int64_t)h * w - 1, step_x = -1, step_y = -w;
  else if (v->rotation == 270) from = (int64_t)(w - 1) * h, step_x = -h, step_y = 1;
  for (int y = 0; y < h; y++) {
    const uint8_t *g = v->rgb[0] + (ptrdiff_t)y * v->rgb_stride[0];
    const uint8_t *b = v->rgb[1] + (ptrdiff_t)y * v->rgb_stride[1];
    const uint8_t *r = v->rgb[2] + (ptrdiff_t)y * v->rgb_stride[2];
    uint8_t *to = out + 3 * (from + y * step_y);
    for (int x = 0; x < w; x++, to += 3 * step_x) {
      to[0] = r[x];
      to[1] = g[x];
      to[2] = b[x];
    }
  }
}

static double sane_rate(AVRational r) { return r.num > 0 && r.den > 0 ? av_q2d(r) : 0; }

md_video *md_video_open(const char *path, const md_video_limits *limits, md_fault *f) {
  md_ffmpeg_take_log();
  md_video *v = calloc(1, sizeof *v);
  if (!v) return fail(f, E0501, NULL, "out of memory while the video was opened"), NULL;
  if (limits) v->limits = *limits;
  if (!v->limits.max_pixels) v->limits.max_pixels = 1 << 25;
  if (!v->limits.max_frames) v->limits.max_frames = 1000000;
  if (v->limits.max_seconds == 0) v->limits.max_seconds = 120;
  v->key_pts = AV_NOPTS_VALUE;
  v->deadline_ns = md_now_ns() + (int64_t)(v->limits.max_seconds * 1e9);
  const AVCodec *codec = NULL;
  bool ok = open_regular(v, path, f) && open_container(v, path, f) && pick_stream(v, &codec, f) &&
            open_decoder(v, codec, f);
  if (ok) return v;
  md_video_close(v);
  return NULL;
}

void md_video_close(md_video *v) {
  if (!v) return;
  sws_freeContext(v->scaler);
  av_freep(&v->rgb[0]);
  av_frame_free(&v->frame);
  av_frame_free(&v->spare);
  av_frame_free(&v->fetched);
  av_packet_free(&v->packet);
  avcodec_free_context(&v->decoder);
  avformat_close_input(&v->demux);
  if (v->io) av_freep(&v->io->buffer);
  avio_context_free(&v->io);
  if (v->fd >= 0) close(v->fd);
  free(v);
}

md_video_info md_video_about(const md_video *v) {
  const AVStream *s = v->stream;
  md_video_info info = {.rotation = v->rotation,
                        .rates = {sane_rate(s->avg_frame_rate), sane_rate(s->r_frame_rate)},
                        .time_base = av_q2d(s->time_base),
                        .declared = MD_MAX(s->nb_frames, 0),
                        .one_to_one = v->is_one_to_one};
  if (info.rates[0] <= 0) info.rates[0] = info.rates[1];
  snprintf(info.format, sizeof info.format, "%s", v->demux->iformat->name);
  snprintf(info.codec, sizeof info.codec, "%s", v->decoder->codec->name);
  return info;
}

md_video_step md_video_next(md_video *v, md_frame_info *info, md_fault *f) {
  if (v->is_over) return MD_VIDEO_END;
  md_video_step step = receive(v, f);
  v->is_over = step != MD_VIDEO_FRAME;
  if (v->is_over) return step;
  AVFrame *complete = v->spare;
  v->spare = v->frame;
  v->frame = complete;
  av_frame_unref(v->spare);
  // best_effort changes to decoding times where it distrusts the others; packets had these.
  int64_t pts = v->is_one_to_one && complete->pts != AV_NOPTS_VALUE
                    ? complete->pts
                    : complete->best_effort_timestamp;
  bool is_damaged = (complete->flags & AV_FRAME_FLAG_CORRUPT) || complete->decode_error_flags;
  if (is_damaged) v->damaged++;
  *info = (md_frame_info){.pts = pts,
                          .has_pts = pts != AV_NOPTS_VALUE,
                          .damaged = is_damaged,
                          .key = complete->key_frame != 0};
  return MD_VIDEO_FRAME;
}

md_video_step md_video_packet(md_video *v, md_frame_info *info, md_fault *f) {
  md_video_step step;
  do step = read_packet(v, f);
  while (step == MD_VIDEO_FRAME && (v->packet->flags & AV_PKT_FLAG_DISCARD));
  if (step != MD_VIDEO_FRAME) return step;
  int64_t pts = v->packet->pts;
  *info = (md_frame_info){.pts = pts,
                          .has_pts = pts != AV_NOPTS_VALUE,
                          .damaged = (v->packet->flags & AV_PKT_FLAG_CORRUPT) != 0,
                          .key = (v->packet->flags & AV_PKT_FLAG_KEY) != 0};
  return MD_VIDEO_FRAME;
}

void md_video_start_at(md_video *v, int64_t pts) {
  if (v->key_pts != AV_NOPTS_VALUE && pts <= v->key_pts) return;
  if (v->packets) avcodec_flush_buffers(v->decoder);
  v->start_pts = pts;
  v->is_skipping = true;
  // Reading on is sure and cheap where it is near; a container that cannot seek is read on, too.
  int64_t from = v->key_pts == AV_NOPTS_VALUE ? 0 : v->key_pts;
  if (v->is_one_to_one &&
      ((double)pts - (double)from) * av_q2d(v->stream->time_base) > read_on_seconds)
    av_seek_frame(v->demux, v->stream->index, pts, AVSEEK_FLAG_BACKWARD);
}

void md_video_want(md_video *v, bool (*is_wanted)(const void *ctx, int64_t pts), const void *ctx) {
  v->is_wanted = v->is_one_to_one ? is_wanted : NULL;
  v->wanted_ctx = ctx;
}

int64_t md_video_damaged(const md_video *v) { return v->damaged; }

int64_t md_video_gpu_frames(const md_video *v) { return v->gpu_frames; }

int64_t md_video_packets(const md_video *v) { return v->packets; }

int64_t md_video_seek_ns(const md_video *v) { return v->seek_ns; }

bool md_video_rgb(md_video *v, int short_side, md_image *out, md_fault *f) {
  MD_ASSERT(v->grid_w > 0, "no frame has been decoded yet");
  int square_w, square_h, w = v->grid_w, h = v->grid_h;
  scale_to_square(v, short_side, &square_w, &square_h);
  if (short_side) w = square_w, h = square_h;
  if (!fetch(v, v->frame, f)) return false;
  if (!prepare_scaler(v, w, h, f)) return false;
  sws_scale(v->scaler, (const uint8_t *const *)v->frame->data, v->frame->linesize, 0,
            v->frame->height, v->rgb, v->rgb_stride);
  bool is_turned = v->rotation == 90 || v->rotation == 270;
  if (!md_image_resize(out, is_turned ? h : w, is_turned ? w : h))
    return fail(f, E0501, NULL, "out of memory for a frame of %dx%d pixels", w, h);
  copy_upright(v, w, h, out->rgb);
  out->disp_w = is_turned ? square_h : square_w;
  out->disp_h = is_turned ? square_w : square_h;
  return true;
}

md_video_md5 *md_video_md5_create(void) {
  md_video_md5 *m = md_malloc(sizeof *m);
  m->state = av_md5_alloc();
  if (!m->state) md_out_of_memory((size_t)av_md5_size);
  av_md5_init(m->state);
  return m;
}

void md_video_md5_add(md_video_md5 *m, const md_video *v) {
  const AVFrame *fr = v->frame;
  int bytes = av_image_get_buffer_size(fr->format, fr->width, fr->height, 1);
  if (bytes <= 0) return;
  uint8_t *packed = av_malloc((size_t)bytes);
  if (!packed) md_out_of_memory((size_t)bytes);
  av_image_copy_to_buffer(packed, bytes, (const uint8_t *const *)fr->data, fr->linesize, fr->format,
                          fr->width, fr->height, 1);
  av_md5_update(m->state, packed, (size_t)bytes);
  av_free(packed);
}

void md_video_md5_text(md_video_md5 *m, char out[33]) {
  uint8_t sum[16];
  av_md5_final(m->state, sum);
  for (int i = 0; i < 16; i++) snprintf(out + (ptrdiff_t)2 * i, 3, "%02x", sum[i]);
  av_free(m->state);
  free(m);
}

void md_video_library_version(char *text, int size) {
  unsigned format = avformat_version(), codec = avcodec_version();
  snprintf(text, (size_t)size, "%s (libavformat %u.%u.%u, libavcodec %u.%u.%u)", av_version_info(),
           AV_VERSION_MAJOR(format), AV_VERSION_MINOR(format), AV_VERSION_MICRO(format),
           AV_VERSION_MAJOR(codec), AV_VERSION_MINOR(codec), AV_VERSION_MICRO(codec));
}
