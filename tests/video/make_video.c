// SPDX-License-Identifier: Apache-2.0
// Encodes what a function says about each pixel.
#include "tests/video/make_video.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void need(bool ok, const char *what, const char *path) {
  if (ok) return;
  fprintf(stderr, "make_video: %s: %s\n", path, what);
  abort();
}

static void write_packets(AVCodecContext *enc, AVFormatContext *mux, AVStream *st, AVPacket *packet,
                          const AVFrame *frame, const char *path) {
  need(avcodec_send_frame(enc, frame) >= 0, "frame is not encoded", path);
  int error;
  while ((error = avcodec_receive_packet(enc, packet)) >= 0) {
    av_packet_rescale_ts(packet, enc->time_base, st->time_base);
    packet->stream_index = st->index;
    need(av_interleaved_write_frame(mux, packet) >= 0, "packet is not written", path);
  }
  need(error == AVERROR(EAGAIN) || error == AVERROR_EOF, "packet is not encoded", path);
}

void make_video(const made_video *m) {
  AVFormatContext *mux = NULL;
  av_log_set_level(AV_LOG_ERROR);
  need(avformat_alloc_output_context2(&mux, NULL, NULL, m->path) >= 0, "unknown container",
       m->path);
  const AVCodec *codec =
      avcodec_find_encoder(m->is_lossless ? AV_CODEC_ID_FFV1 : AV_CODEC_ID_MPEG4);
  AVCodecContext *enc = avcodec_alloc_context3(codec);
  need(enc != NULL, "no encoder", m->path);
  enc->width = m->w;
  enc->height = m->h;
  enc->pix_fmt = m->is_lossless ? AV_PIX_FMT_0RGB32 : AV_PIX_FMT_YUV420P;
  enc->time_base = m->times ? (AVRational){1, 1000} : (AVRational){m->fps_den, m->fps_num};
  enc->framerate = (AVRational){m->fps_num, m->fps_den};
  enc->thread_count = 1;
  enc->global_quality = 2 * FF_QP2LAMBDA;
  enc->flags |= AV_CODEC_FLAG_QSCALE;
  if (m->key_every) enc->gop_size = m->key_every;
  enc->max_b_frames = m->b_frames;
  if (m->aspect_num) enc->sample_aspect_ratio = (AVRational){m->aspect_num, m->aspect_den};
  if (mux->oformat->flags & AVFMT_GLOBALHEADER) enc->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  need(avcodec_open2(enc, codec, NULL) >= 0, "encoder does not open", m->path);

  AVStream *st = avformat_new_stream(mux, NULL);
  need(st && avcodec_parameters_from_context(st->codecpar, enc) >= 0, "no stream", m->path);
  st->time_base = enc->time_base;
  st->avg_frame_rate = enc->framerate;
  st->sample_aspect_ratio = enc->sample_aspect_ratio;
  if (m->rotation) {
    uint8_t *matrix = av_stream_new_side_data(st, AV_PKT_DATA_DISPLAYMATRIX, 9 * sizeof(int32_t));
    need(matrix != NULL, "no display matrix", m->path);
    int32_t turned[9];
    av_display_rotation_set(turned, m->rotation);
    memcpy(matrix, turned, sizeof turned);
  }
  need(avio_open(&mux->pb, m->path, AVIO_FLAG_WRITE) >= 0, "file cannot be written", m->path);
  need(avformat_write_header(mux, NULL) >= 0, "header is not written", m->path);

  AVFrame *rgb = av_frame_alloc(), *coded = av_frame_alloc();
  AVPacket *packet = av_packet_alloc();
  need(rgb && coded && packet, "no memory", m->path);
  rgb->width = coded->width = m->w;
  rgb->height = coded->height = m->h;
  rgb->format = AV_PIX_FMT_0RGB32;
  coded->format = enc->pix_fmt;
  struct SwsContext *sws = sws_getContext(m->w, m->h, AV_PIX_FMT_0RGB32, m->w, m->h, enc->pix_fmt,
                                          SWS_BILINEAR, NULL, NULL, NULL);
  for (int t = 0; t < m->frames; t++) {
    av_frame_unref(coded);
    coded->width = m->w;
    coded->height = m->h;
    coded->format = enc->pix_fmt;
    need((rgb->data[0] || av_frame_get_buffer(rgb, 0) >= 0) && av_frame_get_buffer(coded, 0) >= 0 &&
             sws,
         "no memory", m->path);
    for (int y = 0; y < m->h; y++) {
      uint8_t *row = rgb->data[0] + (ptrdiff_t)y * rgb->linesize[0];
      for (int x = 0; x < m->w; x++) {
        uint32_t color = m->pixel(t, x, y);
        memcpy(row + (ptrdiff_t)4 * x, &color, sizeof color);
      }
    }
    sws_scale(sws, (const uint8_t *const *)rgb->data, rgb->linesize, 0, m->h, coded->data,
              coded->linesize);
    coded->pts = m->times ? m->times[t] : t;
    coded->quality = enc->global_quality;
    write_packets(enc, mux, st, packet, coded, m->path);
  }
  write_packets(enc, mux, st, packet, NULL, m->path);
  need(av_write_trailer(mux) >= 0, "trailer is not written", m->path);
  sws_freeContext(sws);
  av_packet_free(&packet);
  av_frame_free(&rgb);
  av_frame_free(&coded);
  avcodec_free_context(&enc);
  avio_closep(&mux->pb);
  avformat_free_context(mux);
}

uint32_t made_counter(int t, int x, int y) {
  (void)x, (void)y;
  return 0x010101U * (uint32_t)((t + 1) & 0xFF);
}

uint32_t made_square(int t, int x, int y) {
  int left = 2 * t % 80;
  bool inside = x >= left && x < left + 16 && y >= 20 && y < 36;
  return inside ? 0xF0E040U : (uint32_t)(((x & 0x7F) << 16) | ((y & 0x7F) << 8) | 0x30);
}
