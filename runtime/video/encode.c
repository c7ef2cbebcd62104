// SPDX-License-Identifier: Apache-2.0
// The way back through FFmpeg: RGB frames into a video file, MPEG-4 in the container that the file's
// extension names. The file appears under its name only when it is complete.
#include "runtime/video/video.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libswscale/swscale.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct md_encoder {
  char *path, *part;
  md_diags *diags;
  AVFormatContext *mux;
  AVCodecContext *coder;
  AVStream *stream;
  AVPacket *packet;
  AVFrame *frame;
  struct SwsContext *scaler;
  int64_t num_frames;
  bool failed;
};

static bool fail(md_encoder *e, const char *what, int error) {
  char words[AV_ERROR_MAX_STRING_SIZE] = "not enough memory";
  if (error < 0) av_strerror(error, words, sizeof words);
  if (!e->failed) md_error(e->diags, E0843, MD_IN_FILE(e->path), "%s: %s", what, words);
  e->failed = true;
  return false;
}

static bool open_coder(md_encoder *e, int w, int h, int fps) {
  const AVCodec *codec = avcodec_find_encoder(AV_CODEC_ID_MPEG4);
  e->coder = codec ? avcodec_alloc_context3(codec) : NULL;
  if (!e->coder) return fail(e, "this FFmpeg has no MPEG-4 encoder", AVERROR_ENCODER_NOT_FOUND);
  AVCodecContext *c = e->coder;
  c->width = w;
  c->height = h;
  c->pix_fmt = AV_PIX_FMT_YUV420P;
  c->time_base = (AVRational){1, fps};
  c->framerate = (AVRational){fps, 1};
  c->thread_count = 1;
  c->gop_size = fps;
  c->global_quality = 3 * FF_QP2LAMBDA;
  // Equal frames give equal bytes: no version, no date.
  c->flags |= AV_CODEC_FLAG_QSCALE | AV_CODEC_FLAG_BITEXACT;
  if (e->mux->oformat->flags & AVFMT_GLOBALHEADER) c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  int error = avcodec_open2(c, codec, NULL);
  return error >= 0 || fail(e, "the encoder does not open", error);
}

static bool open_file(md_encoder *e) {
  e->stream = avformat_new_stream(e->mux, NULL);
  if (!e->stream) return fail(e, "no stream", 0);
  int error = avcodec_parameters_from_context(e->stream->codecpar, e->coder);
  if (error < 0) return fail(e, "no stream", error);
  e->stream->time_base = e->coder->time_base;
  e->stream->avg_frame_rate = e->coder->framerate;
  e->mux->flags |= AVFMT_FLAG_BITEXACT;
  char *url = malloc(strlen(e->part) + 6);
  if (!url) return fail(e, "no name", 0);
  sprintf(url, "file:%s", e->part);  // a name is never taken for a protocol
  error = avio_open(&e->mux->pb, url, AVIO_FLAG_WRITE);
  free(url);
  if (error >= 0) error = avformat_write_header(e->mux, NULL);
  return error >= 0 || fail(e, "the file cannot be written", error);
}

static bool write_packets(md_encoder *e, const AVFrame *frame) {
  int error = avcodec_send_frame(e->coder, frame);
  if (error < 0) return fail(e, "a frame is not encoded", error);
  while ((error = avcodec_receive_packet(e->coder, e->packet)) >= 0) {
    av_packet_rescale_ts(e->packet, e->coder->time_base, e->stream->time_base);
    e->packet->stream_index = e->stream->index;
    error = av_interleaved_write_frame(e->mux, e->packet);
    if (error < 0) return fail(e, "the file cannot be written", error);
  }
  return error == AVERROR(EAGAIN) || error == AVERROR_EOF ||
         fail(e, "a frame is not encoded", error);
}

static void destroy(md_encoder *e) {
  sws_freeContext(e->scaler);
  av_packet_free(&e->packet);
  av_frame_free(&e->frame);
  avcodec_free_context(&e->coder);
  if (e->mux) avio_closep(&e->mux->pb);
  avformat_free_context(e->mux);
  if (e->failed && e->part) unlink(e->part);
  free(e->path);
  free(e->part);
  free(e);
}

md_encoder *md_encoder_open(const char *path, int w, int h, int fps, md_diags *d) {
  md_encoder *e = calloc(1, sizeof *e);
  if (!e) return NULL;
  av_log_set_level(AV_LOG_QUIET);
  e->diags = d;
  e->path = strdup(path);
  e->part = malloc(strlen(path) + 6);
  bool ok = e->path && e->part;
  if (ok) sprintf(e->part, "%s.part", path);
  ok = ok && avformat_alloc_output_context2(&e->mux, NULL, NULL, path) >= 0;
  if (!ok) fail(e, "unknown container", AVERROR_MUXER_NOT_FOUND);
  ok = ok && open_coder(e, w, h, fps) && open_file(e);
  e->packet = av_packet_alloc();
  e->frame = av_frame_alloc();
  e->scaler = sws_getContext(w, h, AV_PIX_FMT_RGB24, w, h, AV_PIX_FMT_YUV420P, SWS_BILINEAR, NULL,
                             NULL, NULL);
  if (ok && (!e->packet || !e->frame || !e->scaler)) ok = fail(e, "no frame", 0);
  if (ok) return e;
  destroy(e);
  return NULL;
}

bool md_encoder_frame(md_encoder *e, const uint8_t *rgb) {
  if (e->failed) return false;
  av_frame_unref(e->frame);
  e->frame->width = e->coder->width;
  e->frame->height = e->coder->height;
  e->frame->format = e->coder->pix_fmt;
  int error = av_frame_get_buffer(e->frame, 0);
  if (error < 0) return fail(e, "no frame", error);
  const uint8_t *src[4] = {rgb};
  int stride[4] = {3 * e->coder->width};
  sws_scale(e->scaler, src, stride, 0, e->coder->height, e->frame->data, e->frame->linesize);
  e->frame->pts = e->num_frames++;
  e->frame->quality = e->coder->global_quality;
  return write_packets(e, e->frame);
}

bool md_encoder_close(md_encoder *e) {
  bool ok = !e->failed && write_packets(e, NULL);
  int error = ok ? av_write_trailer(e->mux) : 0;
  if (error >= 0 && ok) error = avio_closep(&e->mux->pb);
  if (error < 0) ok = fail(e, "the file cannot be written", error);
  if (ok && rename(e->part, e->path) != 0)
    ok = fail(e, "the file cannot be renamed", AVERROR(errno));
  destroy(e);
  return ok;
}
